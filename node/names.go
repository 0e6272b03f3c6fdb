package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"moire.dev/moire/datapath"
	"moire.dev/moire/dns"
	"moire.dev/moire/snapshot"
)

// names is the applier that answers names and metadata in each Network of the
// node: the room dns in the words of this one. It comes after the kernel side.
type names struct {
	cfg      Config
	log      *slog.Logger
	presence *presence
	learned  *learned
	server   *dns.Server
	metadata *metadata
	alive    func(map[snapshot.Addr]bool) (map[datapath.Pair]bool, error)
	stir     func()

	mu    sync.Mutex
	until context.Context // of run; nil: it has not begun, or has ended
	seats map[snapshot.VNI]*seat
	wait  sync.WaitGroup // of all seats
}

// seat is the sockets in one Network.
type seat struct {
	device int // index of the interface that they are bound to
	close  func()
	done   chan struct{} // closed when nothing of it runs any more
}

// repairEvery is how often it is looked whether the presence is whole.
const repairEvery = 2 * time.Second

func newNames(cfg Config, p *presence, stir func(), alive func(map[snapshot.Addr]bool) (map[datapath.Pair]bool, error), log *slog.Logger) *names {
	n := &names{cfg: cfg, log: log, presence: p, alive: alive, stir: stir, seats: map[snapshot.VNI]*seat{}}
	n.learned = newLearned(log, &toldFile{path: cfg.toldPath()}, stir)
	n.server = dns.New(dns.Config{Dial: n.dial, Teller: n.learned, ResolvConf: cfg.ResolvConf, Log: log})
	n.metadata = newMetadata(n.server.Zones, n.dial, log)
	return n
}

// dial connects to a name server or metadata endpoint, from inside a Network
// or by the host.
func (n *names) dial(ctx context.Context, vni snapshot.VNI, inside bool, network string, to netip.AddrPort) (net.Conn, error) {
	if inside {
		return n.presence.dial(ctx, vni, network, to)
	}
	return new(net.Dialer).DialContext(ctx, network, to.String())
}

func (n *names) Name() string { return "names" }

func (n *names) Grow(s State) error {
	n.server.Use(dns.NewZones(s.Snapshot, n.server.Zones()))
	n.metadata.use(s.Snapshot)
	n.learned.leave(s)
	n.presence.repair() // now that the kernel side has the node's ends up
	return n.sit()
}

func (n *names) Shrink(State) error {
	devices, _ := n.presence.state()
	n.mu.Lock()
	defer n.mu.Unlock()
	for vni := range n.seats {
		if _, stays := devices[vni]; !stays {
			n.leave(vni)
		}
	}
	return nil
}

// sit opens sockets where the node is present and has none on the interface
// that is there now.
func (n *names) sit() error {
	devices, err := n.presence.state()
	errs := []error{err}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.until == nil {
		return err
	}
	for vni, device := range devices {
		if old := n.seats[vni]; old != nil && old.device == device {
			continue
		}
		n.leave(vni)
		if err := n.take(vni, device); err != nil {
			errs = append(errs, fmt.Errorf("answer names in network %d: %w", vni, err))
		}
	}
	return errors.Join(errs...)
}

// leave closes the sockets in a Network; the caller has the lock.
func (n *names) leave(vni snapshot.VNI) {
	if old := n.seats[vni]; old != nil {
		old.close()
		<-old.done
		delete(n.seats, vni)
	}
}

// take opens the sockets in a Network; the caller has the lock.
func (n *names) take(vni snapshot.VNI, device int) error {
	o, err := n.open(vni)
	if err != nil {
		o.close()
		return err
	}
	ctx, cancel := context.WithCancel(n.until)
	s := &seat{device: device, done: make(chan struct{}), close: func() { cancel(); o.close() }}
	var wg sync.WaitGroup
	for _, c := range o.packets {
		wg.Go(func() { n.server.ServePacket(ctx, vni, c) })
	}
	for _, l := range o.streams {
		wg.Go(func() { n.server.ServeStream(ctx, vni, l) })
	}
	wg.Go(func() { n.metadata.serve(ctx, vni, o.web) })
	n.seats[vni] = s
	n.wait.Go(func() {
		defer close(s.done)
		wg.Wait()
		cancel()
		o.close()
	})
	return nil
}

// sockets of one Network.
type sockets struct {
	packets []*net.UDPConn
	streams []*net.TCPListener
	web     *net.TCPListener
}

func (o *sockets) close() {
	for _, c := range o.packets {
		c.Close()
	}
	for _, l := range o.streams {
		l.Close()
	}
	if o.web != nil {
		o.web.Close()
	}
}

func (n *names) open(vni snapshot.VNI) (*sockets, error) {
	o := &sockets{}
	lc := net.ListenConfig{Control: bound(vni)}
	err := n.presence.there.Do(func() error {
		for _, a := range []netip.Addr{snapshot.NameServer4, snapshot.NameServer6} {
			at := netip.AddrPortFrom(a, 53).String()
			c, err := lc.ListenPacket(context.Background(), "udp", at)
			if err != nil && a.Is6() {
				continue // a kernel without IPv6
			}
			if err != nil {
				return err
			}
			o.packets = append(o.packets, c.(*net.UDPConn))
			l, err := lc.Listen(context.Background(), "tcp", at)
			if err != nil {
				return err
			}
			o.streams = append(o.streams, l.(*net.TCPListener))
		}
		l, err := lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(snapshot.Metadata4, 80).String())
		if err != nil {
			return err
		}
		o.web = l.(*net.TCPListener)
		return nil
	})
	return o, err
}

// run answers until ctx is done, repairs the presence, and forgets addresses
// whose time is over.
func (n *names) run(ctx context.Context) error {
	n.mu.Lock()
	n.until = ctx
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.until = nil
		for vni := range n.seats {
			n.leave(vni)
		}
		n.mu.Unlock()
		n.wait.Wait()
		n.metadata.close()
		n.learned.keep.close()
	}()
	said := ""
	try := func(what string, err error) {
		switch {
		case err == nil:
			said = ""
		case said != err.Error():
			said = err.Error()
			n.log.Error(what, "error", err)
		}
	}
	try("cannot answer names", n.sit())
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	repaired := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		try("cannot forget addresses of names", n.learned.expire(n.alive))
		if time.Since(repaired) < repairEvery {
			continue
		}
		repaired = time.Now()
		if n.presence.repair() {
			n.log.Warn("the presence of the node in its Networks was repaired")
			try("cannot answer names", n.sit())
			n.stir() // the kernel side has to know the interfaces
		}
	}
}

func (n *names) Dump(w io.Writer) error {
	st := n.server.Stats()
	fmt.Fprintf(w, "names queries=%d forwarded=%d failed=%d dropped=%d remembered=%d\n", st.Queries, st.Forwarded, st.Failed, st.Dropped, st.Cached)
	n.mu.Lock()
	for _, vni := range slices.Sorted(maps.Keys(n.seats)) {
		fmt.Fprintf(w, "names in %d at %s, %s\n", vni, snapshot.NameServer4, snapshot.NameServer6)
	}
	n.mu.Unlock()
	n.learned.dump(w)
	for vni, problems := range n.server.Zones().Problems() {
		fmt.Fprintf(w, "problem in %d: %q\n", vni, problems)
	}
	return nil
}

// dump lists what Workloads were told.
func (l *learned) dump(w io.Writer) {
	l.mu.Lock()
	all := l.all()
	l.mu.Unlock()
	lines := make([]string, 0, len(all))
	for _, k := range all {
		lines = append(lines, fmt.Sprintf("told %s/%s in %d: %s is %s until %s", k.Project, k.Workload, k.VNI, k.name, k.addr, k.until.UTC().Format(time.RFC3339)))
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
}
