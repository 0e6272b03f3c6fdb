package tls

import (
	stdtls "crypto/tls"
	"io"
	"iter"
	"testing"
)

// end is one end of a connection over memory, whose handshake runs on a coroutine.
type end struct {
	*Filter
	next func() (struct{}, bool)
	stop func()
	err  error
	done bool
}

func begin(f *Filter) *end {
	e := &end{Filter: f}
	e.next, e.stop = iter.Pull(func(yield func(struct{}) bool) {
		e.err = f.Handshake(func() error {
			if !yield(struct{}{}) {
				return io.ErrClosedPipe
			}
			return nil
		})
		e.done = true
	})
	return e
}

// carry moves bytes from one end to the other, at most step at a time.
func carry(from, to *Filter, step int) (moved bool) {
	for len(from.Sealed()) > 0 {
		b := from.Sealed()[:min(step, len(from.Sealed()))]
		to.Feed(b)
		from.Sent(len(b))
		moved = true
	}
	return moved
}

// shake runs both handshakes until they are over or stand still.
func shake(a, b *end) {
	for range 40 {
		if !a.done {
			a.next()
		}
		carry(a.Filter, b.Filter, 1<<20)
		if !b.done {
			b.next()
		}
		carry(b.Filter, a.Filter, 1<<20)
		if a.err != nil {
			b.End()
		}
		if b.err != nil {
			a.End()
		}
		if a.done && b.done {
			break
		}
	}
	a.stop()
	b.stop()
}

// connect makes a connection; the errors are those of the two handshakes, and
// in TLS 1.3, where a client may be done before the server refused it, the
// client's may only be seen when it reads.
func connect(client, server *stdtls.Config) (c, s *Filter, cerr, serr error) {
	a, b := begin(ClientFilter(client, "192.0.2.1:443")), begin(ServerFilter(server, "192.0.2.2:1000"))
	shake(a, b)
	return a.Filter, b.Filter, a.err, b.err
}

func mustConnect(t testing.TB, client, server *stdtls.Config) (c, s *Filter) {
	t.Helper()
	c, s, cerr, serr := connect(client, server)
	if cerr != nil || serr != nil {
		t.Fatalf("client: %v, server: %v", cerr, serr)
	}
	// Tickets of TLS 1.3 come after the handshake.
	var p [1]byte
	if n, err := c.Read(p[:]); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	return c, s
}
