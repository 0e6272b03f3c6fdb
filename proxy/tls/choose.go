package tls

import (
	stdtls "crypto/tls"
	"errors"
	"strings"
	"sync/atomic"
)

// Chooser picks among some certificates of a Store by the name that a client
// asks for. It follows the Store: what is loaded there is chosen from with the
// next handshake.
type Chooser struct {
	store *Store
	names []string
	index atomic.Pointer[index]
}

// index is immutable and made from one set.
type index struct {
	of       *set
	byName   map[string][]*stdtls.Certificate // exact names and *.rest
	fallback *stdtls.Certificate
}

// Choose makes a Chooser of the certificates called names; the first is shown
// to who asks for a name that none has, or for none.
func (s *Store) Choose(names []string) *Chooser {
	return &Chooser{store: s, names: names}
}

var errNoCertificate = errors.New("no certificate is loaded")

// Get is stdtls.Config.GetCertificate: of the certificates with exactly the
// name asked for, else of those with its first label replaced by *, the first
// that the client can verify; else the default.
func (c *Chooser) Get(hello *stdtls.ClientHelloInfo) (*stdtls.Certificate, error) {
	ix := c.current()
	if ix == nil || ix.fallback == nil {
		return nil, errNoCertificate
	}
	name := hello.ServerName
	if name == "" {
		return ix.fallback, nil
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if cert := suitable(ix.byName[name], hello); cert != nil {
		return cert, nil
	}
	if _, rest, ok := strings.Cut(name, "."); ok {
		if cert := suitable(ix.byName["*."+rest], hello); cert != nil {
			return cert, nil
		}
	}
	return ix.fallback, nil
}

// suitable is the first that the client can verify, or the first.
func suitable(list []*stdtls.Certificate, hello *stdtls.ClientHelloInfo) *stdtls.Certificate {
	if len(list) > 1 {
		for _, cert := range list {
			if hello.SupportsCertificate(cert) == nil {
				return cert
			}
		}
	}
	if len(list) > 0 {
		return list[0]
	}
	return nil
}

// current is the index of the store's set; it is made anew when the set is
// another. Two handshakes at once may make the same twice.
func (c *Chooser) current() *index {
	cur := c.store.current.Load()
	ix := c.index.Load()
	if cur == nil || ix != nil && ix.of == cur {
		return ix
	}
	ix = &index{of: cur, byName: map[string][]*stdtls.Certificate{}}
	for _, name := range c.names {
		e := cur.byName[name]
		if e == nil {
			continue
		}
		if ix.fallback == nil {
			ix.fallback = &e.cert
		}
		for _, host := range e.names {
			ix.byName[host] = append(ix.byName[host], &e.cert)
		}
	}
	c.index.Store(ix)
	return ix
}
