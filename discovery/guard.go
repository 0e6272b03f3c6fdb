package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"moire.dev/moire/snapshot/wire"
)

// ServerName is the DNS name that nodes expect in the certificate of the
// control plane, whatever address they dialled.
const ServerName = "control.moire"

// limits of connections that have not shown a certificate.
type limits struct {
	bytes int64         // read from one in all, TLS included
	time  time.Duration // until it is closed
	joins int32         // calls of Join on one
	total int           // at one time
	// perAddress leaves room for others when one address takes all it can.
	perAddress int
}

func defaultLimits() limits {
	return limits{bytes: 64 << 10, time: 20 * time.Second, joins: 3, total: 512, perAddress: 256}
}

// guard is the TLS of the server: a certificate, when there is one, must be of
// our CA, and who has none gets next to nothing.
type guard struct {
	ca  Authority
	max limits

	mu        sync.Mutex
	strangers map[netip.Addr]int
	total     int
}

func newGuard(ca Authority) *guard {
	return &guard{ca: ca, max: defaultLimits(), strangers: map[netip.Addr]int{}}
}

// connection is what is known of the other end of a connection.
type connection struct {
	credentials.TLSInfo
	joins *atomic.Int32 // calls of Join so far
}

// ServerHandshake implements credentials.TransportCredentials.
func (g *guard) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	s := &stranger{Conn: raw, guard: g}
	s.left.Store(g.max.bytes)
	if a, err := netip.ParseAddrPort(raw.RemoteAddr().String()); err == nil {
		s.addr = a.Addr().Unmap()
	}
	if !g.enter(s.addr) {
		_ = raw.Close() // it was never used
		return nil, nil, errors.New("too many connections without a certificate")
	}
	conn := tls.Server(s, g.config())
	if err := conn.Handshake(); err != nil {
		_ = s.Close() // the handshake's error is the one that counts
		return nil, nil, err
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		_ = s.Close() // nothing was sent
		return nil, nil, errors.New("the other end does not speak HTTP/2")
	}
	if len(state.VerifiedChains) > 0 {
		s.known()
	} else {
		s.expire(g.max.time)
	}
	return conn, connection{
		TLSInfo: credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}},
		joins:   new(atomic.Int32),
	}, nil
}

func (g *guard) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := g.ca.ServerCertificate()
			return &c, err
		},
		ClientAuth: tls.VerifyClientCertIfGiven,
		ClientCAs:  pool(g.ca.Roots()),
		// Every connection proves anew who it is.
		SessionTicketsDisabled: true,
	}
}

func pool(roots [][]byte) *x509.CertPool {
	out := x509.NewCertPool()
	for _, der := range roots {
		if c, err := x509.ParseCertificate(der); err == nil {
			out.AddCert(c)
		}
	}
	return out
}

func (g *guard) enter(a netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.max.total || g.strangers[a] >= g.max.perAddress {
		return false
	}
	g.total++
	g.strangers[a]++
	return true
}

func (g *guard) leave(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.strangers[a]--; g.strangers[a] == 0 {
		delete(g.strangers, a)
	}
}

// tap refuses calls before a byte of their message is read.
func (g *guard) tap(ctx context.Context, call *tap.Info) (context.Context, error) {
	c, err := connectionOf(ctx)
	if err != nil {
		return ctx, err
	}
	if call.FullMethodName == wire.Discovery_Join_FullMethodName {
		if c.joins.Add(1) > g.max.joins {
			return ctx, status.Errorf(codes.ResourceExhausted, "more than %d calls of Join on one connection", g.max.joins)
		}
		return ctx, nil
	}
	if len(c.State.VerifiedChains) == 0 {
		return ctx, status.Error(codes.Unauthenticated, "no certificate was shown; join first")
	}
	return ctx, nil
}

func connectionOf(ctx context.Context) (connection, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(connection); ok {
			return c, nil
		}
	}
	return connection{}, status.Error(codes.Unauthenticated, "the connection is not known")
}

// caller is the node that makes a call: the certificate says so. The moment is
// when that certificate ends.
func (s *Server) caller(ctx context.Context) (node string, until time.Time, err error) {
	c, err := connectionOf(ctx)
	if err != nil {
		return "", until, err
	}
	if len(c.State.VerifiedChains) == 0 {
		return "", until, status.Error(codes.Unauthenticated, "no certificate was shown; join first")
	}
	leaf := c.State.VerifiedChains[0][0]
	node, err = s.cfg.CA.NodeOf(leaf)
	if err != nil {
		s.log.Warn("a certificate was refused", "remote", remote(ctx), "error", err)
		return "", until, status.Error(codes.Unauthenticated, err.Error())
	}
	return node, leaf.NotAfter, nil
}

func remote(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

// stranger is a connection that has not shown a certificate yet.
type stranger struct {
	net.Conn
	guard *guard
	addr  netip.Addr
	left  atomic.Int64 // bytes that may still be read; negative: no limit
	once  sync.Once
	timer atomic.Pointer[time.Timer]
}

// Read stops at the limit.
func (s *stranger) Read(b []byte) (int, error) {
	left := s.left.Load()
	if left < 0 {
		return s.Conn.Read(b)
	}
	if left == 0 {
		return 0, fmt.Errorf("more than %d bytes from a connection without a certificate", s.guard.max.bytes)
	}
	n, err := s.Conn.Read(b[:min(int64(len(b)), left)])
	s.left.CompareAndSwap(left, left-int64(n))
	return n, err
}

// known lifts the limits.
func (s *stranger) known() {
	s.left.Store(-1)
	s.once.Do(func() { s.guard.leave(s.addr) })
}

func (s *stranger) expire(d time.Duration) {
	s.timer.Store(time.AfterFunc(d, func() { _ = s.Conn.Close() })) // the reader sees the error
}

// Close implements net.Conn.
func (s *stranger) Close() error {
	if t := s.timer.Load(); t != nil {
		t.Stop()
	}
	s.once.Do(func() { s.guard.leave(s.addr) })
	return s.Conn.Close()
}

// ClientHandshake implements credentials.TransportCredentials; a guard only
// serves.
func (g *guard) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for servers")
}

// Info implements credentials.TransportCredentials.
func (g *guard) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials; the counts are shared.
func (g *guard) Clone() credentials.TransportCredentials { return g }

// OverrideServerName implements credentials.TransportCredentials; a server has
// no name to override.
func (g *guard) OverrideServerName(string) error { return nil }
