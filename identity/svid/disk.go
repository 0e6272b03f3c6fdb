package svid

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const suffix = ".pem"

// path of the file of an identity: its name says nothing.
func (s *Store) path(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(s.cfg.Dir, hex.EncodeToString(sum[:16])+suffix)
}

// readAll reads what is on disk. What is of no use is removed.
func (s *Store) readAll() (map[string]*SVID, error) {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return nil, err
	}
	out := map[string]*SVID{}
	for _, e := range entries {
		path := filepath.Join(s.cfg.Dir, e.Name())
		if !strings.HasSuffix(e.Name(), suffix) {
			if strings.HasPrefix(e.Name(), ".") { // half written when we were killed
				_ = os.Remove(path)
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		v, err := decode(b, s.now())
		if err == nil && s.path(v.ID) == path {
			out[v.ID] = v
			continue
		}
		s.log.Info("a certificate on disk is of no use any more", "file", path, "error", err)
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// replaceFile replaces a file, which only the owner may read, as a whole and
// durably, or not at all.
func replaceFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()           // the first error is the one that counts
			_ = os.Remove(f.Name()) // so is it here
		}
	}()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// jitter is a little more or less than d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }
