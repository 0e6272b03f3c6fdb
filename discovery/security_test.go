package discovery

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// raw is a gRPC client with the papers, or without.
func raw(t *testing.T, addr string, cfg *tls.Config) wire.DiscoveryClient {
	t.Helper()
	conn, err := dial(addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return wire.NewDiscoveryClient(conn)
}

// papersOf loads what Join left.
func papersOf(t *testing.T, dir string) *papers {
	t.Helper()
	p, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// watchFails opens a Watch and returns how it was refused.
func watchFails(t *testing.T, c wire.DiscoveryClient) error {
	t.Helper()
	stream, err := c.Watch(after(t))
	if err != nil {
		return err
	}
	if err := stream.Send(&wire.FromNode{Hello: &wire.Hello{}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	m, err := stream.Recv()
	if err == nil {
		t.Fatalf("got a delta: %v", m)
	}
	return err
}

func TestWithoutCertificate(t *testing.T) {
	ca := newCA(t, 0)
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	s.Publish("n1", some("n1", 1400))
	c := raw(t, s.Addr(), &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool(ca.Roots()), ServerName: ServerName})
	if err := watchFails(t, c); status.Code(err) != codes.Unauthenticated {
		t.Errorf("Watch: %v", err)
	}
	if _, err := c.Renew(after(t), &wire.RenewRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("Renew: %v", err)
	}
	stream, err := c.Ship(after(t))
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("Ship: %v", err)
	}
}

// show makes the client show a certificate that the server has not asked for.
func show(cfg *tls.Config, c tls.Certificate) {
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
}

// forge signs the certificate of a node with a CA of its own.
func forge(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	id, err := url.Parse("spiffe://moire/node/n1")
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: root.NotBefore, NotAfter: root.NotAfter, URIs: []*url.URL{id}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestForeignCertificate(t *testing.T) {
	ca, other := newCA(t, 0), newCA(t, 0)
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	s2, _ := startServer(t, ServerConfig{CA: other, Sink: newWorld()})
	s.Publish("n1", some("n1", 1400))
	foreign := papersOf(t, join(t, other, s2.Addr(), "n1"))
	cfg := foreign.tls()
	cfg.RootCAs = pool(ca.Roots())
	show(cfg, cfg.Certificates[0])
	if err := watchFails(t, raw(t, s.Addr(), cfg)); status.Code(err) != codes.Unavailable {
		t.Errorf("a certificate of another CA: %v", err)
	}
	show(cfg, forge(t))
	if err := watchFails(t, raw(t, s.Addr(), cfg)); status.Code(err) != codes.Unavailable {
		t.Errorf("a forged certificate: %v", err)
	}
	server, err := ca.ServerCertificate()
	if err != nil {
		t.Fatal(err)
	}
	show(cfg, server)
	if err := watchFails(t, raw(t, s.Addr(), cfg)); status.Code(err) != codes.Unavailable {
		t.Errorf("the certificate of the control plane: %v", err)
	}
	cfg = papersOf(t, join(t, ca, s.Addr(), "n1")).tls()
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if err := watchFails(t, raw(t, s.Addr(), cfg)); status.Code(err) != codes.Unavailable {
		t.Errorf("TLS 1.2: %v", err)
	}
}

func TestClientRefusesForeignServer(t *testing.T) {
	ca, other := newCA(t, 0), newCA(t, 0)
	s, stop := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	addr := s.Addr()
	dir := join(t, ca, addr, "n1")
	stop()
	sink := newWorld()
	startServer(t, ServerConfig{CA: other, Sink: sink, Listen: addr})
	c, _ := startClient(t, ClientConfig{Servers: []string{addr}, Dir: dir, Node: "n1", Handler: &kernel{}})
	time.Sleep(300 * time.Millisecond)
	if c.Connected() {
		t.Error("connected to a control plane of another CA")
	}
	// A node cannot pose as the control plane.
	p := papersOf(t, dir)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, Certificates: p.tls().Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake() // the client's view is what counts
			_ = conn.Close()
		}
	}()
	err = watchFails(t, raw(t, l.Addr().String(), p.tls()))
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a node posing as the control plane: %v", err)
	}
}

func TestNodeGetsOnlyItsOwn(t *testing.T) {
	ca, sink := newCA(t, 0), newWorld()
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: sink})
	s.Publish("a", some("a", 1400))
	s.Publish("b", some("b", 1401))
	a := join(t, ca, s.Addr(), "a")
	stream, err := raw(t, s.Addr(), papersOf(t, a).tls()).Watch(after(t))
	if err != nil {
		t.Fatal(err)
	}
	// Claiming b's version does not make it b.
	if err := stream.Send(&wire.FromNode{Hello: &wire.Hello{Version: string(some("b", 1401).Version())}}); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if m.Version != string(some("a", 1400).Version()) {
		t.Fatalf("got version %s", m.Version)
	}
	if err := stream.Send(&wire.FromNode{Report: wire.FromReport(&snapshot.Report{Node: "b", Address: underlay})}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "report", func() bool {
		n := 0
		sink.look(func() { n = len(sink.reports) })
		return n > 0
	})
	sink.look(func() {
		if _, ok := sink.reports["b"]; ok {
			t.Error("a spoke for b")
		}
	})
	// The client itself refuses to run with the papers of another.
	c, _ := startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: a, Node: "b", Handler: &kernel{}})
	time.Sleep(200 * time.Millisecond)
	if c.Connected() {
		t.Error("connected as a, to work as b")
	}
}

func TestStrangersAreLimited(t *testing.T) {
	ca := newCA(t, 0)
	s, err := NewServer(ServerConfig{Listen: "127.0.0.1:0", CA: ca, Sink: newWorld(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	s.guard.max = limits{bytes: 16 << 10, time: 2 * time.Second, joins: 3, total: 4, perAddress: 4}
	start(t, s.Run)
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, RootCAs: pool(ca.Roots()), ServerName: ServerName}

	// Guesses on one connection.
	c := raw(t, s.Addr(), cfg)
	in := &wire.JoinRequest{Token: "aaaaaaaa.b", Node: "n1", Address: underlay.AsSlice()}
	for i := range 5 {
		_, err := c.Join(after(t), in)
		want := codes.PermissionDenied
		if i >= 3 {
			want = codes.ResourceExhausted
		}
		if i == 0 && status.Code(err) != want || i == 4 && status.Code(err) == codes.PermissionDenied {
			t.Errorf("guess %d: %v, want %v", i, err, want)
		}
		if status.Code(err) == codes.Unavailable {
			break // its time is over
		}
	}
	// A large message is cut off long before it is whole.
	in.Csr = make([]byte, 1<<20)
	if _, err := raw(t, s.Addr(), cfg).Join(after(t), in); status.Code(err) != codes.Unavailable {
		t.Errorf("large message: %v", err)
	}
	// Silent connections end, and only so many are let in.
	eventually(t, "room", func() bool { s.guard.mu.Lock(); defer s.guard.mu.Unlock(); return s.guard.total == 0 })
	begin := time.Now()
	refused := 0
	var conns []net.Conn
	for range 6 {
		conn, err := tls.Dial("tcp", s.Addr(), cfg)
		if err != nil {
			refused++
			continue
		}
		conns = append(conns, conn)
	}
	if refused != 2 {
		t.Errorf("%d refused, want 2", refused)
	}
	for _, conn := range conns {
		if _, err := io.Copy(io.Discard, conn); err == nil && time.Since(begin) > 10*time.Second {
			t.Error("a silent connection stayed")
		}
		_ = conn.Close() // the server has closed it
	}
	eventually(t, "room again", func() bool { s.guard.mu.Lock(); defer s.guard.mu.Unlock(); return s.guard.total == 0 })
	join(t, ca, s.Addr(), "n1")
}

func TestNoHello(t *testing.T) {
	ca := newCA(t, 0)
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	cfg := papersOf(t, join(t, ca, s.Addr(), "n1")).tls()
	stream, err := raw(t, s.Addr(), cfg).Watch(after(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&wire.FromNode{Ack: &wire.Ack{Version: "v"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("ack before hello: %v", err)
	}
	if err := watchTwice(t, raw(t, s.Addr(), cfg)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("two hellos: %v", err)
	}
}

func watchTwice(t *testing.T, c wire.DiscoveryClient) error {
	t.Helper()
	stream, err := c.Watch(after(t))
	if err != nil {
		return err
	}
	for range 2 {
		if err := stream.Send(&wire.FromNode{Hello: &wire.Hello{}}); err != nil {
			break // Recv tells why
		}
	}
	_, err = stream.Recv()
	return err
}
