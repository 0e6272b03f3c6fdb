package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

var oidSAN = asn1.ObjectIdentifier{2, 5, 29, 17}

// uriTag is the context tag of a URI among the names of a certificate.
const uriTag = 6

// NodeOf returns the name of the node whose certificate this is. Everything
// must be exactly as SignNode makes it: signed by this CA, alive, not a CA,
// for client authentication and nothing else, and with one single name, which
// is compared byte for byte.
func (ca *CA) NodeOf(cert *x509.Certificate) (string, error) {
	node, err := ca.nodeOf(cert)
	if err != nil {
		return "", fmt.Errorf("not the certificate of a node: %w", err)
	}
	return node, nil
}

func (ca *CA) nodeOf(cert *x509.Certificate) (string, error) {
	if cert == nil || len(cert.Raw) == 0 {
		return "", errors.New("there is none")
	}
	if cert.IsCA {
		return "", errors.New("it is a CA")
	}
	if len(cert.UnknownExtKeyUsage) > 0 || !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		return "", errors.New("it is not for client authentication alone")
	}
	id, err := onlyURI(cert)
	if err != nil {
		return "", err
	}
	node, err := nodeName(id)
	if err != nil {
		return "", err
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if err = ca.verify(cert); err != nil {
		// Another process may have replaced the issuing certificate.
		if _, rerr := ca.readIssuing(); rerr != nil {
			return "", fmt.Errorf("node %s: %w", node, rerr)
		}
		err = ca.verify(cert)
	}
	if err != nil {
		return "", fmt.Errorf("node %s: %w", node, err)
	}
	return node, nil
}

// verify the chain up to a root. The caller holds mu.
func (ca *CA) verify(cert *x509.Certificate) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range ca.roots {
		roots.AddCert(r)
	}
	for _, c := range ca.issuing {
		between.AddCert(c)
	}
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: between,
		CurrentTime:   ca.cfg.Now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// onlyURI reads the one name of a certificate from its bytes: the parsed form
// leaves out kinds of names, and normalises URIs.
func onlyURI(cert *x509.Certificate) (string, error) {
	found := false
	var id string
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidSAN) {
			continue
		}
		if found {
			return "", errors.New("it has two lists of names")
		}
		found = true
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &names); err != nil || len(rest) > 0 {
			return "", errors.New("its names cannot be read")
		}
		if len(names) != 1 {
			return "", fmt.Errorf("it has %d names, not one", len(names))
		}
		if names[0].Class != asn1.ClassContextSpecific || names[0].Tag != uriTag {
			return "", errors.New("its name is not a URI")
		}
		id = string(names[0].Bytes)
	}
	if !found {
		return "", errors.New("it has no name")
	}
	return id, nil
}
