package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"moire.dev/moire/proxy/authz"
	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/door"
	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/resilience"
	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/snapshot/l7"
)

// Proxy is one proxy process.
type Proxy struct {
	log     *slog.Logger
	tel     *telemetry.Telemetry
	start   time.Time
	workers []*worker

	notary *authz.Notary

	mu       sync.Mutex // of what follows, for Apply
	plan     atomic.Pointer[plan]
	clusters map[string]*cluster
	sockets  map[netip.AddrPort][]int // handed over by a predecessor
	checks   map[string]*checking
	// namespaces are those of the mesh whose sockets the workers have.
	namespaces map[string]*door.Sockets
	secrets    secrets
	ctx        context.Context // of Run; nil before
	running    sync.WaitGroup
	draining   atomic.Bool
	trimmed    atomic.Int64 // bytes that workers gave up since they were collected
	ring       engine.RingUse
}

// Options of a Proxy; the zero value is good.
type Options struct {
	// Log of what operators have to know; never of requests. Nil: slog.Default.
	Log *slog.Logger
	// Workers; 0: one for each core that the process may use.
	Workers int
	// Version of the program, told in metrics.
	Version string
	// Sockets that a predecessor listens on, by address: they are taken over.
	Sockets map[netip.AddrPort][]int
	// Ring says whether workers talk to the kernel through io_uring: on, off, or
	// auto, the default: if the kernel has all that is needed and allows it.
	Ring string
}

var ringUse = map[string]engine.RingUse{"on": engine.RingOn, "off": engine.RingOff}

// New makes a Proxy. It starts nothing and listens nowhere: see Apply and Run.
func New(o Options) (*Proxy, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	p := &Proxy{log: o.Log, start: time.Now(), clusters: map[string]*cluster{}, sockets: o.Sockets, ring: ringUse[o.Ring], checks: map[string]*checking{}, notary: authz.NewNotary()}
	p.tel = telemetry.New(telemetry.Options{Workers: o.Workers, Now: p.now, Version: o.Version, Log: o.Log})
	for i := range o.Workers {
		w, err := newWorker(p, i)
		if err != nil {
			return nil, err
		}
		p.workers = append(p.workers, w)
	}
	p.log.Debug("workers", "count", o.Workers, "kernel", p.workers[0].loop.Kind())
	return p, nil
}

// now is the clock of everything that is measured; never 0.
func (p *Proxy) now() int64 { return int64(time.Since(p.start)) + 1 }

// Telemetry of the proxy, for the admin door.
func (p *Proxy) Telemetry() *telemetry.Telemetry { return p.tel }

// Config that is served; nil before the first Apply.
func (p *Proxy) Config() *l7.Config {
	if n := p.plan.Load(); n != nil {
		return n.conf
	}
	return nil
}

// Run serves until ctx ends, then stops at once; Drain comes before.
func (p *Proxy) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	p.ctx = ctx
	for _, c := range p.checks {
		p.begin(c)
	}
	p.mu.Unlock()
	errs := make(chan error, len(p.workers)+1)
	for _, w := range p.workers {
		go func() { errs <- w.run(ctx) }()
	}
	go func() { errs <- p.tel.Run(ctx) }()
	p.running.Go(func() { p.tick(ctx) })
	p.running.Go(func() { p.notary.Run(ctx, 1) })
	var all []error
	for range len(p.workers) + 1 {
		err := <-errs
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			all = append(all, err)
		}
	}
	p.running.Wait()
	for _, w := range p.workers {
		w.shut()
	}
	return errors.Join(all...)
}

// Apply switches to a configuration. When it cannot be built, or an address
// cannot be listened on, the error says why, and all stays as it was.
func (p *Proxy) Apply(cfg *l7.Config) error { return p.apply(cfg, nil) }

// apply is Apply with the sockets of a mesh.
func (p *Proxy) apply(cfg *l7.Config, sockets map[string]*door.Sockets) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining.Load() && cfg.Mesh == nil {
		return errors.New("the proxy drains, and takes no other configuration")
	}
	old := p.plan.Load()
	n, err := p.prepare(cfg, old)
	if err != nil {
		return err
	}
	moves, err := p.compare(sockets)
	if err != nil {
		return err
	}
	opened, err := p.open(n, old)
	if err != nil {
		moves.close()
		return err
	}
	if err := p.complete(n, old); err != nil {
		moves.close()
		closeAll(opened)
		return err
	}
	p.commit(sockets, moves)
	p.plan.Store(n)
	for _, w := range p.workers {
		p.in(w, func() { w.use(n); w.relisten(n, opened[w.index]); w.settle(moves) })
	}
	p.follow(n)
	p.forget(n)
	p.trimmed.Add(giveBack + 1) // what the configuration was made of, and the old one
	return nil
}

// in has f run by a worker; before Run there is nobody else, and it runs here.
func (p *Proxy) in(w *worker, f func()) {
	if p.ctx == nil {
		f()
		return
	}
	w.loop.Post(f)
}

// open makes the sockets for addresses that are new, for each worker one.
func (p *Proxy) open(n, old *plan) ([]map[netip.AddrPort][]int, error) {
	have := map[netip.AddrPort]bool{}
	if old != nil {
		for _, l := range old.listeners {
			if l.conf.View == "" {
				have[l.addr] = true
			}
		}
	}
	out := make([]map[netip.AddrPort][]int, len(p.workers))
	for i := range out {
		out[i] = map[netip.AddrPort][]int{}
	}
	for _, l := range n.listeners {
		if have[l.addr] || l.conf.View != "" || p.draining.Load() {
			continue
		}
		have[l.addr] = true
		fds := p.sockets[l.addr]
		delete(p.sockets, l.addr)
		for i := len(fds); i < len(p.workers); i++ {
			fd, err := engine.Listen(l.addr)
			if err != nil {
				closeAll(out)
				return nil, fmt.Errorf("listener %s: %w", l.conf.Name, err)
			}
			fds = append(fds, fd)
		}
		for i, fd := range fds {
			w := i % len(p.workers)
			out[w][l.addr] = append(out[w][l.addr], fd)
		}
	}
	return out, nil
}

// relisten makes the worker's listeners those of its plan.
func (w *worker) relisten(n *plan, opened map[netip.AddrPort][]int) {
	want := map[netip.AddrPort]bool{}
	for _, l := range n.listeners {
		if want[l.addr] || l.conf.View != "" || w.draining {
			continue // the first of those that share an address speaks for all
		}
		want[l.addr] = true
		if err := w.listen(l.addr, l, opened[l.addr]); err != nil {
			w.p.log.Error("cannot accept", "listener", l.conf.Name, "error", err)
		}
	}
	for addr, a := range w.listeners {
		if !want[addr] {
			a.stop()
			delete(w.listeners, addr)
		}
	}
}

func (a *accepting) stop() {
	for _, s := range a.socks {
		s.Close()
	}
	a.socks = nil
}

// cluster with this name, new or as it was.
func (p *Proxy) cluster(name string) *cluster {
	cl := p.clusters[name]
	if cl == nil {
		cl = &cluster{name: name, shared: balance.NewShared(), limits: resilience.NewCircuit(l7.Circuit{}, l7.RetryBudget{})}
		p.clusters[name] = cl
	}
	return cl
}

// forget drops what the plan has no more.
func (p *Proxy) forget(n *plan) {
	keep := map[string]bool{}
	for _, s := range n.clusters {
		keep[s.name] = true
	}
	if n.mesh != nil {
		for _, w := range n.mesh.workloads {
			keep[w.app.name], keep[w.away.name] = true, true
		}
	}
	for name := range p.clusters {
		if !keep[name] {
			delete(p.clusters, name)
		}
	}
}
