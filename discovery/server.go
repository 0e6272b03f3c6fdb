package discovery

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// Authority says who is who.
type Authority interface {
	// ServerCertificate is asked for every connection. It must hold the DNS name
	// ServerName and its chain must end in the root.
	ServerCertificate() (tls.Certificate, error)
	// Roots in DER.
	Roots() [][]byte
	// SignNode turns a PKCS #10 request into a chain in DER, leaf first.
	SignNode(csr []byte, node string) (chain [][]byte, err error)
	// CheckToken uses a token up that is good only once.
	CheckToken(token string) error
	// NodeOf is the name of the node whose certificate this is.
	NodeOf(cert *x509.Certificate) (string, error)
}

// Sink hears what nodes say. Calls about one node come one after the other,
// except Records, which has its own order; calls about different nodes come at
// the same time. A call that blocks holds up that node and no other.
type Sink interface {
	// Joined is called before a node gets its certificate; an error refuses it.
	Joined(node string, addr netip.Addr) error
	// Connected begins a connection; a newer connection of the node replaces an
	// older one without Gone in between.
	Connected(node string)
	// Gone: the node has no connection any more, and was last heard then: now, or
	// before it fell silent.
	Gone(node string, heard time.Time)
	Report(node string, r snapshot.Report)
	// Acked: the node has the version (applied: in its kernel), or errText says
	// why not.
	Acked(node string, v snapshot.Version, applied bool, errText string)
	// Captured brings what Captures saw, in the order of the node.
	Captured(node string, cs []snapshot.Captured)
	// Records may bring some twice after a connection broke. lost counts what
	// the node dropped since its agent started.
	Records(node string, rs []record.Record, lost uint64)
}

// ServerConfig of a Server.
type ServerConfig struct {
	// Listen is host:port; port 0 picks one.
	Listen string
	CA     Authority
	Sink   Sink
	// Issuer certifies identities; nil: nobody does.
	Issuer Issuer
	Log    *slog.Logger // nil: slog.Default()
	// Whole sends every snapshot whole, never what changed: for measuring what
	// that costs.
	Whole bool
	// AckTimeout is how long a node may take to take the next part of a delta,
	// or to acknowledge it, before it must connect anew. Default 30 s.
	AckTimeout time.Duration
	// Keepalive is how long a connection may be silent before it is tried, and
	// KeepaliveTimeout how long the answer may take. Default 1 s each: nodes
	// give a sign of life every second, and what needs a living node has to leave
	// one that died within 3 s.
	Keepalive, KeepaliveTimeout time.Duration
}

// Limits of the server.
const (
	maxStreams       = 16 // per connection
	maxHeader        = 16 << 10
	handshakeTimeout = 5 * time.Second
	helloTimeout     = 5 * time.Second
	shutdownTime     = 2 * time.Second
	maxIdle          = time.Minute // of a connection without a stream
)

// Server is the control plane's end.
type Server struct {
	wire.UnimplementedDiscoveryServer
	cfg   ServerConfig
	log   *slog.Logger
	guard *guard

	mu      sync.Mutex // of members and of their streams
	members map[string]*member

	ready    chan struct{} // closed when addr is set
	addr     net.Addr
	stopping chan struct{}
	once     sync.Once
	streams  sync.WaitGroup // goroutines of streams
}

// NewServer checks the configuration; Run starts.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.CA == nil || cfg.Sink == nil || cfg.Listen == "" {
		return nil, errors.New("discovery: Listen, CA and Sink must be set")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.AckTimeout = cmp.Or(cfg.AckTimeout, 30*time.Second)
	cfg.Keepalive = cmp.Or(cfg.Keepalive, time.Second)
	cfg.KeepaliveTimeout = cmp.Or(cfg.KeepaliveTimeout, time.Second)
	return &Server{
		cfg: cfg, log: cfg.Log, guard: newGuard(cfg.CA),
		members: map[string]*member{}, ready: make(chan struct{}), stopping: make(chan struct{}),
	}, nil
}

// Run serves until ctx ends, and returns when every connection is closed. It
// can run once.
func (s *Server) Run(ctx context.Context) error {
	first := false
	s.once.Do(func() { first = true })
	if !first {
		return errors.New("discovery: a Server runs once; make another one")
	}
	if err := checkAuthority(s.cfg.CA); err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("discovery: %w; choose another address or stop who has it", err)
	}
	g := grpc.NewServer(
		grpc.Creds(s.guard),
		grpc.InTapHandle(s.guard.tap),
		grpc.MaxRecvMsgSize(wire.MaxMessage),
		grpc.MaxSendMsgSize(wire.MaxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: s.cfg.Keepalive, Timeout: s.cfg.KeepaliveTimeout, MaxConnectionIdle: maxIdle,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	wire.RegisterDiscoveryServer(g, s)
	grpc_health_v1.RegisterHealthServer(g, pulses{health.NewServer(), s})
	s.addr = l.Addr()
	close(s.ready)
	s.log.Info("discovery listens", "address", s.addr.String())
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	select {
	case err = <-served:
		err = fmt.Errorf("discovery: %w", err)
	case <-ctx.Done():
	}
	// Streams end by themselves and tell why; whoever does not is cut off.
	close(s.stopping)
	cut := time.AfterFunc(shutdownTime, g.Stop)
	g.GracefulStop()
	cut.Stop()
	if ctx.Err() != nil {
		<-served
	}
	s.streams.Wait()
	return err
}

// checkAuthority finds out at once what would otherwise fail every node.
func checkAuthority(ca Authority) error {
	cert, err := ca.ServerCertificate()
	if err != nil {
		return fmt.Errorf("certificate of the control plane: %w", err)
	}
	if len(cert.Certificate) < 2 {
		return errors.New("the certificate of the control plane has no chain; it must end in the root")
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return fmt.Errorf("certificate of the control plane: %w", err)
	}
	if err := leaf.VerifyHostname(ServerName); err != nil {
		return fmt.Errorf("certificate of the control plane: %w", err)
	}
	if !slices.ContainsFunc(ca.Roots(), func(r []byte) bool { return slices.Equal(r, cert.Certificate[len(cert.Certificate)-1]) }) {
		return errors.New("the chain of the certificate of the control plane does not end in a root")
	}
	return nil
}

// Ready is closed once the server listens.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is where the server listens; it blocks until Ready.
func (s *Server) Addr() string {
	<-s.ready
	return s.addr.String()
}

// Publish sets what the node must be. It never blocks; of several in a row a
// node gets the last. nil takes the wanted snapshot away: the node keeps what
// it has, and is forgotten when it is not connected. A snapshot for another
// node is refused.
func (s *Server) Publish(node string, snap *snapshot.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[node]
	if snap == nil {
		if m == nil {
			return
		}
		m.wanted.Store(nil)
		s.forget(m)
		return
	}
	if snap.Node != node {
		s.log.Error("a snapshot was not published: it is for another node", "node", node, "for", snap.Node)
		return
	}
	if m == nil {
		m = newMember(node)
		s.members[node] = m
	}
	before := m.wanted.Load()
	if before != nil && before.snap == snap {
		return
	}
	m.wanted.Store(newWanted(snap, before))
	m.poke()
}

// enter finds or makes the state of a node, for a stream whose certificate
// says that it is that node; the stream must leave at its end.
func (s *Server) enter(node string) *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[node]
	if m == nil {
		m = newMember(node)
		s.members[node] = m
	}
	m.streams++
	return m
}

func (s *Server) leave(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.streams--
	s.forget(m)
}

// forget drops a node that nobody wants anything of and that is not there. The
// caller holds mu.
func (s *Server) forget(m *member) {
	if m.streams == 0 && m.wanted.Load() == nil {
		delete(s.members, m.node)
	}
}

// Nodes returns the state of every node that was published or has connected,
// by name.
func (s *Server) Nodes() []NodeState {
	s.mu.Lock()
	all := make([]*member, 0, len(s.members))
	for _, m := range s.members {
		all = append(all, m)
	}
	s.mu.Unlock()
	out := make([]NodeState, 0, len(all))
	for _, m := range all {
		out = append(out, m.state())
	}
	slices.SortFunc(out, func(a, b NodeState) int { return cmp.Compare(a.Node, b.Node) })
	return out
}
