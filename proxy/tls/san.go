package tls

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
)

var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// Tags of names in a subjectAltName, RFC 5280 4.2.1.6.
const (
	tagOtherName = 0
	tagURI       = 6
)

// uris are the URI names of a certificate, byte for byte as they were signed.
// It is an error when one of them could be read in two ways, when one is there
// twice, and when there is an otherName, which nothing here understands.
func uris(cert *x509.Certificate) ([]string, error) {
	var all []string
	seen := false
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(subjectAltName) {
			continue
		}
		if seen {
			return nil, errors.New("certificate has two subjectAltName extensions")
		}
		seen = true
		var seq asn1.RawValue
		rest, err := asn1.Unmarshal(ext.Value, &seq)
		if err != nil || len(rest) > 0 || seq.Tag != asn1.TagSequence || !seq.IsCompound {
			return nil, errors.New("certificate has a malformed subjectAltName")
		}
		for names := seq.Bytes; len(names) > 0; {
			var name asn1.RawValue
			if names, err = asn1.Unmarshal(names, &name); err != nil || name.Class != asn1.ClassContextSpecific {
				return nil, errors.New("certificate has a malformed subjectAltName")
			}
			switch name.Tag {
			case tagOtherName:
				return nil, errors.New("certificate has an otherName")
			case tagURI:
				uri, err := readURI(name.Bytes)
				if err != nil {
					return nil, err
				}
				all = append(all, uri)
			}
		}
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if a == b {
				return nil, fmt.Errorf("certificate has the URI %q twice", a)
			}
		}
	}
	return all, nil
}

// maxURI is the most bytes of a SPIFFE ID.
const maxURI = 2048

func readURI(b []byte) (string, error) {
	if len(b) == 0 || len(b) > maxURI {
		return "", fmt.Errorf("certificate has a URI of %d bytes", len(b))
	}
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return "", fmt.Errorf("certificate has a URI with the byte %#x", c)
		}
	}
	return string(b), nil
}
