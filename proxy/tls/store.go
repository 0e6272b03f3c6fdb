package tls

import (
	"bytes"
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// Store has the certificates of a proxy by name. Readers get an immutable set;
// Load puts another one in its place, and connections that stand are not
// touched. The zero Store is empty and ready.
type Store struct {
	current atomic.Pointer[set]
}

// set is immutable.
type set struct {
	byName map[string]*entry
	list   []l7.Certificate
}

type entry struct {
	from  l7.Certificate
	cert  stdtls.Certificate
	names []string // DNS names in lower case
	files [2]fileMark
}

// fileMark tells one state of a file from another.
type fileMark struct {
	path string
	size int64
	mod  time.Time
}

// Load reads all certificates of list, files included, and makes them the
// store's. A certificate that cannot be read keeps its last good state, if its
// name had one; the error names each, what is wrong and what to do. Certificates
// that are not in list are gone.
func (s *Store) Load(list []l7.Certificate) error {
	next, err := s.read(list)
	s.current.Store(next)
	return err
}

// Try says what Load would say, and changes nothing.
func (s *Store) Try(list []l7.Certificate) error {
	_, err := s.read(list)
	return err
}

// read makes a set of list. What is as it was, and in no file, is not read again.
func (s *Store) read(list []l7.Certificate) (*set, error) {
	old := s.current.Load()
	next := &set{byName: make(map[string]*entry, len(list)), list: list}
	var problems []error
	for i := range list {
		c := &list[i]
		if old != nil {
			if e := old.byName[c.Name]; e != nil && e.from == *c && c.ChainFile == "" && c.KeyFile == "" {
				next.byName[c.Name] = e
				continue
			}
		}
		e, err := load(c)
		if err != nil {
			problems = append(problems, fmt.Errorf("certificate %q: %w", c.Name, err))
			if old == nil || old.byName[c.Name] == nil {
				continue
			}
			e = old.byName[c.Name]
		}
		next.byName[c.Name] = e
	}
	return next, errors.Join(problems...)
}

// Reload is Load of the same list, for when Changed says so.
func (s *Store) Reload() error {
	if cur := s.current.Load(); cur != nil {
		return s.Load(cur.list)
	}
	return nil
}

// Changed names the certificates whose files are not those that were read. It
// looks at size and time of each file, so it is cheap; who wants files to be
// followed calls it every few seconds, and then Reload.
func (s *Store) Changed() []string {
	cur := s.current.Load()
	if cur == nil {
		return nil
	}
	var names []string
	for i := range cur.list {
		c := &cur.list[i]
		e := cur.byName[c.Name]
		if c.ChainFile == "" && c.KeyFile == "" {
			continue
		}
		if e == nil || !same(e.files[0], c.ChainFile) || !same(e.files[1], c.KeyFile) {
			names = append(names, c.Name)
		}
	}
	return names
}

func same(m fileMark, path string) bool {
	if path == "" {
		return true
	}
	info, err := os.Stat(path)
	return err == nil && m.path == path && info.Size() == m.size && info.ModTime().Equal(m.mod)
}

// Certificate is the one called name, and whether there is one.
func (s *Store) Certificate(name string) (*stdtls.Certificate, bool) {
	if cur := s.current.Load(); cur != nil {
		if e := cur.byName[name]; e != nil {
			return &e.cert, true
		}
	}
	return nil, false
}

// Leaves are the certificates that are loaded, by name, without their keys.
func (s *Store) Leaves() iter.Seq2[string, *x509.Certificate] {
	return func(yield func(string, *x509.Certificate) bool) {
		cur := s.current.Load()
		if cur == nil {
			return
		}
		for i := range cur.list {
			if e := cur.byName[cur.list[i].Name]; e != nil && !yield(cur.list[i].Name, e.cert.Leaf) {
				return
			}
		}
	}
}

func load(c *l7.Certificate) (*entry, error) {
	e := &entry{from: *c}
	chain, err := material("chain", c.Chain, c.ChainFile, &e.files[0])
	if err != nil {
		return nil, err
	}
	key, err := material("key", c.Key, c.KeyFile, &e.files[1])
	if err != nil {
		return nil, err
	}
	e.cert, err = stdtls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s do not make a certificate: %w", origin(c.ChainFile, "chain"), origin(c.KeyFile, "key"),
			errors.New(strings.TrimPrefix(err.Error(), "tls: ")))
	}
	for _, name := range e.cert.Leaf.DNSNames {
		e.names = append(e.names, strings.ToLower(name))
	}
	return e, nil
}

func origin(file, field string) string {
	if file != "" {
		return file
	}
	return field
}

// material is PEM from the configuration or from a file.
func material(what, text, file string, m *fileMark) ([]byte, error) {
	switch {
	case text != "" && file != "":
		return nil, fmt.Errorf("has both %s and %sFile; keep one of them", what, what)
	case text != "":
		return []byte(text), nil
	case file == "":
		return nil, fmt.Errorf("has neither %s nor %sFile; set one of them", what, what)
	}
	// The mark is taken first: a file that changes meanwhile has changed since.
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("%sFile: %w", what, err)
	}
	if info.Size() > 1<<20 {
		return nil, fmt.Errorf("%sFile %s has %d bytes; a PEM file with certificates has less than a MiB", what, file, info.Size())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%sFile: %w", what, err)
	}
	if !bytes.Contains(b, []byte("-----BEGIN ")) {
		return nil, fmt.Errorf("%sFile %s is not PEM", what, file)
	}
	*m = fileMark{path: file, size: info.Size(), mod: info.ModTime()}
	return b, nil
}
