package tls

import (
	"bytes"
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"moire.dev/moire/snapshot/l7"
)

// configs for a connection in mutual TLS; version 0: the newest.
func configs(t testing.TB, version uint16, known *Verified) (client, server *stdtls.Config) {
	t.Helper()
	ca := newCA(t, "ca")
	store := stored(t, ca.issue("x", withURI(t, webID)))
	server, err := ServerConfig(&l7.ServerTLS{Certificates: []string{"x"}, ClientCA: ca.pem, Callers: []string{webID}}, l7.HTTP1, store, known)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(&l7.ClientTLS{CA: ca.pem, Servers: []string{webID}, Certificate: "x"}, l7.HTTP1, store, known)
	if err != nil {
		t.Fatal(err)
	}
	client = mustConfig(t, c, "").Clone()
	client.MaxVersion = version
	return client, server
}

// TestFilterCarries: bytes arrive as they were sent, whatever the pieces.
func TestFilterCarries(t *testing.T) {
	for _, version := range []uint16{stdtls.VersionTLS12, stdtls.VersionTLS13} {
		client, server := configs(t, version, nil)
		c, s := mustConnect(t, client, server)
		if c.Facts().Version != version || s.Facts().Version != version {
			t.Errorf("version %x, want %x", c.Facts().Version, version)
		}
		random := rand.New(rand.NewPCG(1, 2))
		for _, dir := range []struct{ from, to *Filter }{{c, s}, {s, c}} {
			var sent, got []byte
			p := make([]byte, 20000)
			for range 60 {
				b := make([]byte, random.IntN(50000))
				for i := range b {
					b[i] = byte(random.Uint32())
				}
				sent = append(sent, b...)
				if err := dir.from.Write(b); err != nil {
					t.Fatal(err)
				}
				for len(dir.from.Sealed()) > 0 {
					n := min(1+random.IntN(30000), len(dir.from.Sealed()))
					dir.to.Feed(dir.from.Sealed()[:n])
					dir.from.Sent(n)
					got = drain(t, dir.to, got, p[:1+random.IntN(len(p))])
				}
			}
			if !bytes.Equal(sent, got) {
				t.Fatalf("sent %d bytes, got %d others", len(sent), len(got))
			}
			if dir.from.wire.out.block != nil || dir.to.wire.in.block != nil {
				t.Error("a connection on which nothing happens holds a block")
			}
		}
		// An orderly end.
		c.CloseWrite()
		carry(c, s, 10)
		if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after close_notify: %d, %v", n, err)
		}
		s.End()
		if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("once more, when the wire ended as well: %d, %v", n, err)
		}
		if err := c.Write([]byte("x")); err == nil {
			t.Error("written after CloseWrite")
		}
		if err := s.Write([]byte("x")); err != nil {
			t.Errorf("the other direction ended as well: %v", err)
		}
	}
}

func drain(t *testing.T, f *Filter, got, p []byte) []byte {
	for {
		n, err := f.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, p[:n]...); n == 0 {
			return got
		}
	}
}

func TestFilterEnds(t *testing.T) {
	client, server := configs(t, 0, nil)
	p := make([]byte, 100)

	// Cut off: no close_notify.
	c, s := mustConnect(t, client, server)
	if err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	half := len(c.Sealed()) - 3
	s.Feed(c.Sealed()[:half])
	if n, err := s.Read(p); n != 0 || err != nil {
		t.Errorf("half a record: %d, %v", n, err)
	}
	s.End()
	if _, err := s.Read(p); err != io.ErrUnexpectedEOF {
		t.Errorf("cut off: %v", err)
	}

	// Changed on the way.
	c, s = mustConnect(t, client, server)
	if err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	c.Sealed()[9] ^= 1
	carry(c, s, 1000)
	if _, err := s.Read(p); err == nil {
		t.Error("a changed record was taken")
	}
	if len(s.Sealed()) == 0 {
		t.Error("no alert for a changed record")
	}
	carry(s, c, 1000)
	if _, err := c.Read(p); err == nil || err == io.EOF {
		t.Errorf("after an alert: %v", err)
	}

	// Nothing before the handshake.
	f := ServerFilter(server, "")
	if err := f.Write(p); err != errEarly {
		t.Error(err)
	}
	if _, err := f.Read(p); err != errEarly {
		t.Error(err)
	}

	// Who waits in vain gives up with the error of wait.
	given := errors.New("time is up")
	if err := f.Handshake(func() error { return given }); !errors.Is(err, given) {
		t.Error(err)
	}
}

// TestFilterNoTLS: what is no TLS is refused at once, not waited for.
func TestFilterNoTLS(t *testing.T) {
	_, server := configs(t, 0, nil)
	for _, in := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x80\x2e\x01\x00\x02\x00\x15\x00\x00", "\x16\x03\x01\xff\xff\x01\x00\x00", "PRI * HTTP/2.0\r\n\r\n"} {
		f := ServerFilter(server, "")
		f.Feed([]byte(in))
		waits := 0
		err := f.Handshake(func() error { waits++; return errors.New("waits") })
		if waits > 0 || err == nil {
			t.Errorf("%q: waits %d times, %v", in, waits, err)
		}
		first, plain := Plain(err)
		if want := in[0] == 'G' || in[0] == 'P'; plain != want || plain && string(first[:]) != in[:5] {
			t.Errorf("%q: plain %v, %q, %v", in, plain, first, err)
		}
	}
}

// TestShrink: this version of Go has the buffers that shrink looks for.
func TestShrink(t *testing.T) {
	if rawInput == nowhere || handMsgs == nowhere || input == nowhere {
		t.Errorf("crypto/tls of %s has other buffers; idle connections keep 18 KiB more", runtime.Version())
	}
}

func TestVersions(t *testing.T) {
	ca := newCA(t, "ca")
	store := stored(t, ca.issue("x", both(dns("a.shop"), usages(x509.ExtKeyUsageServerAuth))))
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for _, c := range []struct {
		name    string
		min     string
		client  *stdtls.Config
		good    bool
		version uint16
	}{
		{"newest", "", &stdtls.Config{}, true, stdtls.VersionTLS13},
		{"1.2", "", &stdtls.Config{MaxVersion: stdtls.VersionTLS12}, true, stdtls.VersionTLS12},
		{"1.2 where 1.3 is asked for", "1.3", &stdtls.Config{MaxVersion: stdtls.VersionTLS12}, false, 0},
		{"1.1", "", &stdtls.Config{MinVersion: stdtls.VersionTLS10, MaxVersion: stdtls.VersionTLS11}, false, 0},
		{"CBC", "", &stdtls.Config{MaxVersion: stdtls.VersionTLS12, CipherSuites: []uint16{stdtls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false, 0},
		{"another protocol", "", &stdtls.Config{NextProtos: []string{"ftp"}}, false, 0},
		{"no protocol", "", &stdtls.Config{NextProtos: []string{}}, true, stdtls.VersionTLS13},
		{"only P-521", "", &stdtls.Config{CurvePreferences: []stdtls.CurveID{stdtls.CurveP521}}, false, 0},
		{"post-quantum and X25519", "", &stdtls.Config{CurvePreferences: []stdtls.CurveID{stdtls.X25519MLKEM768, stdtls.X25519}}, true, stdtls.VersionTLS13},
	} {
		server, err := ServerConfig(&l7.ServerTLS{Certificates: []string{"x"}, MinVersion: c.min}, l7.AutoHTTP, store, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.client.RootCAs, c.client.ServerName = roots, "a.shop"
		if c.client.NextProtos == nil {
			c.client.NextProtos = []string{"h2", "http/1.1"}
		}
		cl, _, cerr, serr := connect(c.client, server)
		if good := cerr == nil && serr == nil; good != c.good || good && cl.Facts().Version != c.version {
			t.Errorf("%s: %v, %v", c.name, cerr, serr)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		s l7.ServerTLS
		p l7.Protocol
	}{
		{l7.ServerTLS{}, l7.HTTP1},
		{l7.ServerTLS{Certificates: []string{"x"}, MinVersion: "1.1"}, l7.HTTP1},
		{l7.ServerTLS{Certificates: []string{"x"}, Callers: []string{"y"}}, l7.HTTP1},
		{l7.ServerTLS{Certificates: []string{"x"}, ClientCA: "no PEM"}, l7.HTTP1},
		{l7.ServerTLS{Certificates: []string{"x"}}, l7.TLS},
	} {
		if _, err := ServerConfig(&c.s, c.p, &Store{}, nil); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
