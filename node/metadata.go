package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"moire.dev/moire/dns"
	"moire.dev/moire/snapshot"
)

// Bounds of metadata, for each Network.
const (
	maxWeb     = 64 // connections
	maxWebBody = 1 << 20
	webTime    = 30 * time.Second
	webWait    = 10 * time.Second // for the endpoint
)

// dialFrom connects from inside a Network or by the host.
type dialFrom func(ctx context.Context, vni snapshot.VNI, inside bool, network string, to netip.AddrPort) (net.Conn, error)

// metadata passes what Workloads ask at 169.254.169.254 on to the endpoint of
// their Network, and says who asks. It believes nothing that they say of
// themselves.
type metadata struct {
	log      *slog.Logger
	zones    func() *dns.Zones
	dial     dialFrom
	snapshot atomic.Pointer[snapshot.Snapshot]

	mu sync.Mutex
	// Connections to endpoints are kept for one Network each: the same address
	// is somebody else in another.
	transports map[snapshot.VNI]*http.Transport
}

func newMetadata(zones func() *dns.Zones, dial dialFrom, log *slog.Logger) *metadata {
	m := &metadata{log: log, zones: zones, dial: dial, transports: map[snapshot.VNI]*http.Transport{}}
	m.snapshot.Store(&snapshot.Snapshot{})
	return m
}

func (m *metadata) use(s *snapshot.Snapshot) { m.snapshot.Store(s) }

// serve answers in one Network until ctx is done.
func (m *metadata) serve(ctx context.Context, vni snapshot.VNI, l net.Listener) {
	h := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { m.answer(w, q, vni) }),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: webTime, WriteTimeout: webTime + webWait, IdleTimeout: webTime,
		MaxHeaderBytes: 32 << 10, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { h.Close() })
	defer stop()
	h.Serve(&few{Listener: l, slots: make(chan struct{}, maxWeb)})
	h.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.transports[vni]; t != nil {
		t.CloseIdleConnections()
		delete(m.transports, vni)
	}
}

func (m *metadata) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.transports {
		t.CloseIdleConnections()
	}
}

func (m *metadata) answer(w http.ResponseWriter, q *http.Request, vni snapshot.VNI) {
	s := m.snapshot.Load()
	network := s.Networks[vni]
	from, err := netip.ParseAddrPort(q.RemoteAddr)
	e, known := s.Endpoints[snapshot.Addr{VNI: vni, IP: from.Addr().Unmap()}]
	if err != nil || !known || e.Home.IP.IsValid() {
		http.Error(w, "this node does not know who asks; try again in a moment", http.StatusForbidden)
		return
	}
	to := s.Names[vni].Metadata
	if to == "" {
		http.Error(w, fmt.Sprintf("Network %s/%s has no metadata endpoint (spec.metadata)", network.Project, network.Name), http.StatusNotFound)
		return
	}
	target, err := url.Parse(to)
	if err != nil || target.Host == "" {
		http.Error(w, fmt.Sprintf("the metadata endpoint %q of Network %s/%s is not an address such as http://host:port", to, network.Project, network.Name), http.StatusBadGateway)
		return
	}
	q.Body = http.MaxBytesReader(w, q.Body, maxWebBody)
	proxy := httputil.ReverseProxy{
		Transport: m.transport(vni),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			for name := range p.Out.Header {
				if claims := strings.ToLower(name); strings.HasPrefix(claims, "x-moire-") || strings.HasPrefix(claims, "x-forwarded-") || claims == "forwarded" || claims == "x-real-ip" {
					p.Out.Header.Del(name)
				}
			}
			p.Out.Header.Set("X-Forwarded-For", from.Addr().Unmap().String())
			p.Out.Header.Set("X-Moire-Project", e.Project)
			p.Out.Header.Set("X-Moire-Workload", e.Workload)
			p.Out.Header.Set("X-Moire-Network", network.Project+"/"+network.Name)
		},
		ErrorHandler: func(w http.ResponseWriter, q *http.Request, err error) {
			code := http.StatusBadGateway
			if _, large := errors.AsType[*http.MaxBytesError](err); large {
				code = http.StatusRequestEntityTooLarge
			}
			http.Error(w, fmt.Sprintf("the metadata endpoint %s of Network %s/%s does not answer: %v", to, network.Project, network.Name, err), code)
		},
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	ctx, cancel := context.WithTimeout(q.Context(), webTime)
	defer cancel()
	proxy.ServeHTTP(w, q.WithContext(ctx))
}

func (m *metadata) transport(vni snapshot.VNI) *http.Transport {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.transports[vni]
	if t == nil {
		t = &http.Transport{
			DialContext:         func(ctx context.Context, _, addr string) (net.Conn, error) { return m.connect(ctx, vni, addr) },
			TLSHandshakeTimeout: webWait, ResponseHeaderTimeout: webWait, IdleConnTimeout: webTime,
			MaxConnsPerHost: maxWeb, MaxIdleConns: 8, DisableCompression: true,
		}
		m.transports[vni] = t
	}
	return t
}

// connect reaches the endpoint from inside the Network when it is there, by
// its names first, else by the host.
func (m *metadata) connect(ctx context.Context, vni snapshot.VNI, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, webWait/2)
	defer cancel()
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	z := m.zones()
	candidates := z.Lookup(vni, host)
	if ip, err := netip.ParseAddr(host); err == nil {
		candidates = []netip.Addr{ip}
	}
	if len(candidates) == 0 {
		if candidates, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
			return nil, err
		}
	}
	for _, ip := range candidates {
		ip = ip.Unmap()
		inside := z.Inside(snapshot.Addr{VNI: vni, IP: ip})
		if !inside && snapshot.StaysInside(ip) {
			err = fmt.Errorf("%s is loopback, link-local or multicast, where the node does not ask for a tenant", ip)
			continue
		}
		var c net.Conn
		if c, err = m.dial(ctx, vni, inside, "tcp", netip.AddrPortFrom(ip, uint16(port))); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// few lets so many connections in at once.
type few struct {
	net.Listener
	slots chan struct{}
}

// Accept returns the next connection; one that is too many is closed.
func (f *few) Accept() (net.Conn, error) {
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case f.slots <- struct{}{}:
			return &counted{Conn: c, free: sync.OnceFunc(func() { <-f.slots })}, nil
		default:
			c.Close()
		}
	}
}

type counted struct {
	net.Conn
	free func()
}

// Close gives the place back.
func (c *counted) Close() error {
	defer c.free()
	return c.Conn.Close()
}
