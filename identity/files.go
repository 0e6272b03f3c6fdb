package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Files of a CA directory.
const (
	// rootKeyFile may be taken away and kept offline; it is only needed when
	// the issuing certificate is replaced.
	rootKeyFile = "root.key"
	// rootFile holds the roots that nodes trust; the first one signs. Written
	// last: a directory with it is a whole CA.
	rootFile = "root.crt"
	// issuingFile holds the issuing key and certificates, the newest first. One
	// file, so that key and certificate always belong together.
	issuingFile = "issuing.pem"
	tokenFile   = "tokens.json"
	lockFile    = "lock"
)

// maxFile bounds what is read from a file of a CA.
const maxFile = 4 << 20

const (
	pemCert = "CERTIFICATE"
	pemKey  = "PRIVATE KEY"
)

// writeFile replaces a file as a whole and durably, or not at all.
func writeFile(path string, content []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()           // the first error is the one that counts
			_ = os.Remove(f.Name()) // so is it here
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func readFile(path string) ([]byte, error) {
	i, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if i.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", path, i.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// lock keeps other processes from changing the directory until unlock.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { _ = f.Close() }, nil // closing unlocks; nothing was written
}

func newKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func encodeCerts(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: c.Raw})...)
	}
	return out
}

// decodePEM reads a key, if there is one, and certificates. Errors never
// repeat the content, which may be secret.
func decodePEM(b []byte) (*ecdsa.PrivateKey, []*x509.Certificate, error) {
	var (
		key   *ecdsa.PrivateKey
		certs []*x509.Certificate
	)
	for {
		var block *pem.Block
		block, b = pem.Decode(b)
		if block == nil {
			return key, certs, nil
		}
		switch block.Type {
		case pemCert:
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("certificate %d: %w", len(certs), err)
			}
			certs = append(certs, c)
		case pemKey:
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, errors.New("the private key is damaged")
			}
			ec, ok := k.(*ecdsa.PrivateKey)
			if !ok || key != nil {
				return nil, nil, errors.New("not exactly one ECDSA private key")
			}
			key = ec
		default:
			return nil, nil, fmt.Errorf("an unexpected %q block", block.Type)
		}
	}
}
