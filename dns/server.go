package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"moire.dev/moire/snapshot"
)

// Defaults.
const (
	DefaultResolvConf = "/etc/resolv.conf"
	DefaultRate       = 20_000
)

// Config of a Server.
type Config struct {
	// Dial connects to another name server, from inside the Network or, when
	// not inside, by the host.
	Dial func(ctx context.Context, vni snapshot.VNI, inside bool, network string, server netip.AddrPort) (net.Conn, error)
	// Teller hears of answers that Policies hang on; nil: none do.
	Teller Teller
	// ResolvConf says what the node itself asks. Default: /etc/resolv.conf.
	ResolvConf string
	// Rate is how many queries a second one address may ask; one that others
	// have to be asked for counts 20 more. 0: DefaultRate; less: no limit.
	Rate int
	// Log for what an operator should know. Default: none.
	Log *slog.Logger
}

// Teller is who must know an answer before the Workload does. Its methods may
// be called from many goroutines.
type Teller interface {
	// Watched reports whether any name matters to the Workload at the address.
	// It is asked for every query and must be quick.
	Watched(client snapshot.Addr) bool
	// Wants reports whether this name does: lower case, without a full stop at
	// the end.
	Wants(client snapshot.Addr, name string) bool
	// Told returns when the Workload may use the addresses, which are valid for
	// ttl. After an error the Workload is told nothing.
	Told(ctx context.Context, client snapshot.Addr, name string, addrs []netip.Addr, ttl time.Duration) error
}

// Server answers. It starts nothing by itself: ServePacket and ServeStream
// work until their context is done.
type Server struct {
	cfg   Config
	now   func() time.Time
	host  hostServers
	names atomic.Pointer[Zones]
	stats stats

	mu      sync.Mutex // of those who write tenants
	tenants atomic.Pointer[map[snapshot.VNI]*tenant]
}

// stats count since the start.
type stats struct {
	queries, forwarded, failed, dropped atomic.Uint64
}

// Stats is what the Server did since it was made.
type Stats struct {
	Queries   uint64 // that were read
	Forwarded uint64 // questions to others
	Failed    uint64 // of those
	Dropped   uint64 // queries beyond a limit or not to be answered
	Cached    int    // answers that are remembered now
}

// tenant is what is remembered for one Network, and for no other.
type tenant struct {
	cache  *cache
	limit  *limiter
	busy   chan struct{} // queries that take longer
	stream chan struct{} // connections

	mu      sync.Mutex
	flights map[string]*flight
	bad     map[netip.AddrPort]time.Time // servers that were silent, until when
	clients map[netip.Addr]int           // connections of each
}

// Bounds for one Network.
const (
	maxBusy          = 256
	maxStreams       = 256
	maxClientStreams = 32
	maxBad           = 64
)

func newTenant(rate int) *tenant {
	return &tenant{
		cache: newCache(), limit: &limiter{rate: int64(rate), askers: map[netip.Addr]*allowance{}},
		busy: make(chan struct{}, maxBusy), stream: make(chan struct{}, maxStreams),
		flights: map[string]*flight{}, bad: map[netip.AddrPort]time.Time{}, clients: map[netip.Addr]int{},
	}
}

// inOrder lists servers that were silent a moment ago last.
func (t *tenant) inOrder(servers []netip.AddrPort, now time.Time) []netip.AddrPort {
	t.mu.Lock()
	defer t.mu.Unlock()
	var good, bad []netip.AddrPort
	for _, s := range servers {
		if now.Before(t.bad[s]) {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	return append(good, bad...)
}

func (t *tenant) mark(server netip.AddrPort, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.bad) >= maxBad {
		clear(t.bad)
	}
	t.bad[server] = now.Add(badTime)
}

// New makes a Server that knows no names yet.
func New(cfg Config) *Server {
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = DefaultResolvConf
	}
	if cfg.Rate == 0 {
		cfg.Rate = DefaultRate
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, now: time.Now, host: hostServers{path: cfg.ResolvConf}}
	s.Use(NewZones(&snapshot.Snapshot{}, nil))
	return s
}

// Use takes over the names. What others said is forgotten for Networks whose
// own configuration is another one now.
func (s *Server) Use(z *Zones) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var was map[snapshot.VNI]*tenant
	if p := s.tenants.Load(); p != nil {
		was = *p
	}
	old := s.names.Load()
	now := make(map[snapshot.VNI]*tenant, len(z.views))
	for vni, v := range z.views {
		t := was[vni]
		if t == nil || old.views[vni] == nil || !sameSources(old.views[vni], v) {
			t = newTenant(s.cfg.Rate)
		}
		now[vni] = t
	}
	s.tenants.Store(&now)
	s.names.Store(z)
	for vni, problems := range z.Problems() {
		if old == nil || old.views[vni] == nil || len(old.views[vni].problems) != len(problems) {
			s.cfg.Log.Warn("names", "network", vni, "problems", problems)
		}
	}
}

// Zones are those in use.
func (s *Server) Zones() *Zones { return s.names.Load() }

// Stats counts.
func (s *Server) Stats() Stats {
	out := Stats{Queries: s.stats.queries.Load(), Forwarded: s.stats.forwarded.Load(), Failed: s.stats.failed.Load(), Dropped: s.stats.dropped.Load()}
	for _, t := range *s.tenants.Load() {
		out.Cached += t.cache.len()
	}
	return out
}
