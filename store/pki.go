package store

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	// adminGroup has every right; Kubernetes binds it to cluster-admin.
	adminGroup = "system:masters"
	adminName  = "moire-admin"
)

// keyFiles are the paths of everything secret or signed that the server needs.
type keyFiles struct {
	dir                    string
	caCert, caKey          string
	servingCert, serveKey  string
	adminCert, adminKey    string
	serviceAccountKey      string
	authenticationSettings string
}

func newKeyFiles(dir string) keyFiles {
	pki := filepath.Join(dir, "pki")
	at := func(name string) string { return filepath.Join(pki, name) }
	return keyFiles{
		dir:    pki,
		caCert: at("ca.crt"), caKey: at("ca.key"),
		servingCert: at("serving.crt"), serveKey: at("serving.key"),
		adminCert: at("admin.crt"), adminKey: at("admin.key"),
		serviceAccountKey:      at("service-account.key"),
		authenticationSettings: at("authentication.yaml"),
	}
}

// authentication lets nobody in without credentials, except to ask for health.
const authentication = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
  - path: /healthz
`

// prepareFiles makes or renews keys and certificates. Keys and the CA are kept
// for the life of the directory; leaves are renewed when a third of their life
// is left, or when the names have changed.
func (s *Store) prepareFiles() (keyFiles, error) {
	k := newKeyFiles(s.cfg.Dir)
	ca, err := loadOrMakeCA(k)
	if err != nil {
		return k, fmt.Errorf("store: certificate authority in %s: %w", k.dir, err)
	}
	host, _, _ := net.SplitHostPort(s.cfg.Listen) // New has checked it
	serving := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "moire-api"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	addNames(serving, append([]string{host}, s.cfg.Names...))
	if err := ca.leaf(k.servingCert, k.serveKey, serving); err != nil {
		return k, fmt.Errorf("store: serving certificate %s: %w", k.servingCert, err)
	}
	admin := &x509.Certificate{
		Subject:     pkix.Name{CommonName: adminName, Organization: []string{adminGroup}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if err := ca.leaf(k.adminCert, k.adminKey, admin); err != nil {
		return k, fmt.Errorf("store: admin certificate %s: %w", k.adminCert, err)
	}
	if _, err := loadOrMakeKey(k.serviceAccountKey); err != nil {
		return k, fmt.Errorf("store: service account key %s: %w", k.serviceAccountKey, err)
	}
	if err := writeFile(k.authenticationSettings, []byte(authentication), 0o600); err != nil {
		return k, fmt.Errorf("store: %s: %w", k.authenticationSettings, err)
	}
	return k, nil
}

// addNames puts names and everything that always means this machine into c.
func addNames(c *x509.Certificate, names []string) {
	names = append(names, "localhost", "127.0.0.1", "::1")
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	for _, n := range names {
		ip := net.ParseIP(n)
		switch {
		case n == "" || ip != nil && ip.IsUnspecified():
		case ip != nil:
			if !slices.ContainsFunc(c.IPAddresses, ip.Equal) {
				c.IPAddresses = append(c.IPAddresses, ip)
			}
		case !slices.Contains(c.DNSNames, n):
			c.DNSNames = append(c.DNSNames, n)
		}
	}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func loadOrMakeCA(k keyFiles) (*authority, error) {
	key, err := loadOrMakeKey(k.caKey)
	if err != nil {
		return nil, err
	}
	cert, err := readCert(k.caCert)
	if err == nil {
		if !key.PublicKey.Equal(cert.PublicKey) {
			return nil, fmt.Errorf("%s does not belong to %s; restore the pair from a backup, or remove both and every certificate beside them", k.caCert, k.caKey)
		}
		return &authority{cert, key}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "moire-api-ca"},
		NotAfter:              time.Now().Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a := &authority{cert: template, key: key}
	der, err := a.sign(template, key)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, writeFile(k.caCert, certPEM(der), 0o644)
}

// leaf makes sure that certFile is a certificate like want for keyFile.
func (a *authority) leaf(certFile, keyFile string, want *x509.Certificate) error {
	key, err := loadOrMakeKey(keyFile)
	if err != nil {
		return err
	}
	have, err := readCert(certFile)
	if err == nil && a.stillGood(have, want, key) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	want.NotAfter = time.Now().Add(leafLife)
	want.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := a.sign(want, key)
	if err != nil {
		return err
	}
	return writeFile(certFile, certPEM(der), 0o644)
}

func (a *authority) stillGood(have, want *x509.Certificate, key *ecdsa.PrivateKey) bool {
	return have.CheckSignatureFrom(a.cert) == nil &&
		key.PublicKey.Equal(have.PublicKey) &&
		time.Until(have.NotAfter) > leafLife/3 &&
		have.Subject.String() == want.Subject.String() &&
		slices.Equal(have.DNSNames, want.DNSNames) &&
		slices.EqualFunc(have.IPAddresses, want.IPAddresses, net.IP.Equal)
}

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	c.SerialNumber = serial
	c.NotBefore = time.Now().Add(-5 * time.Minute) // clocks differ a little
	return x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
}

func loadOrMakeKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		b, _ := pem.Decode(data)
		if b == nil || b.Type != "EC PRIVATE KEY" {
			return nil, fmt.Errorf("%s holds no EC private key; restore it from a backup or remove it", path)
		}
		return x509.ParseECPrivateKey(b.Bytes)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func readCert(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode(data)
	if b == nil || b.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no certificate; restore it from a backup or remove it", path)
	}
	return x509.ParseCertificate(b.Bytes)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// writeKubeconfig writes the admin kubeconfig for the server at addr.
func (s *Store) writeKubeconfig(k keyFiles, addr net.Addr) error {
	var blobs [3][]byte
	for i, f := range []string{k.caCert, k.adminCert, k.adminKey} {
		b, err := os.ReadFile(f)
		if err != nil {
			return fmt.Errorf("store: kubeconfig: %w", err)
		}
		blobs[i] = b
	}
	if _, err := tls.X509KeyPair(blobs[1], blobs[2]); err != nil {
		return fmt.Errorf("store: admin certificate %s: %w", k.adminCert, err)
	}
	c := clientcmdapi.NewConfig()
	c.Clusters["moire"] = &clientcmdapi.Cluster{Server: "https://" + reachable(addr), CertificateAuthorityData: blobs[0]}
	c.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: blobs[1], ClientKeyData: blobs[2]}
	c.Contexts["moire"] = &clientcmdapi.Context{Cluster: "moire", AuthInfo: "admin", Namespace: "default"}
	c.CurrentContext = "moire"
	data, err := clientcmd.Write(*c)
	if err != nil {
		return fmt.Errorf("store: kubeconfig: %w", err)
	}
	if err := writeFile(s.cfg.KubeconfigPath, data, 0o600); err != nil {
		return fmt.Errorf("store: cannot write kubeconfig %s: %w", s.cfg.KubeconfigPath, err)
	}
	return nil
}

// reachable turns a listening address into one that a local client can dial.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
