package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// Datapath is the kernel side of one node. Grow, Shrink, Dump, Drops and Judge
// may be called from any goroutine and thread: they go to the namespace in
// which Open was called.
type Datapath struct {
	cfg     Config
	ns      *namespace
	uplink  *net.Interface
	layout  string
	objects bpf.MoireObjects
	spec    *ebpf.CollectionSpec
	writes  tally
	mtu     atomic.Int64 // of the uplink
	view    atomic.Pointer[view]
	evicted evicted
	// watchers are written by Grow and read by Run.
	watchers    atomic.Pointer[watchers]
	uplinkIndex atomic.Uint32
	probeDue    atomic.Uint64 // boot time; 0: no probe waits
	// interceptions are written by Grow.
	interceptions atomic.Pointer[[]Interception]

	mu       sync.Mutex // owns everything below
	tables   *tables
	rules    *ruleBook
	sets     *setBook
	services *serviceBook
	queues   map[int]uint64 // rate of the queue of an interface, as it was made
	links    map[string]*attachment
	connects map[string]link.Link // by pin: they see connections
	stands   map[uint64]*stand    // by cookie of the namespace
	standsAt map[uint64]*stand    // the same by its inode
	// standLinger is how long a stand that nobody needs stays.
	standLinger time.Duration
	memo        map[snapshot.PolicyKey]remembered
	state       State
	want        *want
	lastRead    time.Time
	subnets     []*net.IPNet
	judge       *judgeObjects
	// lingers: rows are kept for sessions alone, see linger.
	lingers bool
	// idleRules had no use at the last sweep.
	idleRules map[uint32]bool
	watching  bool
	outside   bool
	firewall  firewall
	// firewallUnknown: an agent before this one may have written one.
	firewallUnknown bool
	announce        map[netip.Addr]int // how often the neighbours are told yet
	probes          []snapshot.Capture // to be sent at probeDue
	closed          bool
}

// Open loads the programs, and makes the tables of the node or takes over the
// ones that are pinned. What runs goes on running: programs that are attached
// are replaced by the first Grow, when the tables are right.
func Open(cfg Config) (*Datapath, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, explain(fmt.Errorf("raise the limit of locked memory: %w", err))
	}
	d := &Datapath{cfg: cfg, links: map[string]*attachment{}, connects: map[string]link.Link{}, stands: map[uint64]*stand{}, standsAt: map[uint64]*stand{}, standLinger: standLinger, queues: map[int]uint64{}, firewallUnknown: !cfg.Ephemeral}
	if d.ns, err = currentNamespace(); err != nil {
		return nil, err
	}
	if err := d.open(); err != nil {
		d.Close()
		return nil, fmt.Errorf("open the data path of node %s: %w", cfg.Node, err)
	}
	return d, nil
}

func (d *Datapath) open() (err error) {
	if err = d.findUplink(); err != nil {
		return err
	}
	if err = d.load(); err != nil {
		return explain(err)
	}
	d.tables = newTables(&d.objects.MoireMaps, &d.writes)
	if err = d.tables.read(); err != nil {
		return err
	}
	if d.rules, err = newRules(&d.objects.MoireMaps, &d.writes); err != nil {
		return err
	}
	if d.sets, err = newSets(&d.objects.MoireMaps, d.rules, &d.writes); err != nil {
		return err
	}
	if d.services, err = newServices(&d.objects.MoireMaps, d.cfg.Node, &d.writes); err != nil {
		return err
	}
	d.lastRead = time.Now()
	d.watchers.Store(&watchers{})
	d.view.Store(newView(d.cfg.Node, State{}, nil, d.rules.names, nil))
	// An agent that died may have written rows and not told the sessions.
	return d.bump()
}

// load makes or takes over the maps, and loads the programs.
func (d *Datapath) load() error {
	spec, err := bpf.LoadMoire()
	if err != nil {
		return fmt.Errorf("read the built-in programs: %w", err)
	}
	d.layout = layoutOf(spec)
	spec.Maps["sessions"].MaxEntries = uint32(d.cfg.ConntrackMax)
	var options ebpf.CollectionOptions
	if !d.cfg.Ephemeral {
		options.Maps.PinPath, err = d.prepare()
		if err != nil {
			return err
		}
		for name, m := range spec.Maps {
			if name != "scratch" && !strings.HasPrefix(name, ".") { // no constants
				m.Pinning = ebpf.PinByName
			}
		}
		// The size of a table that is there stays until cleanup.
		if m, err := ebpf.LoadPinnedMap(filepath.Join(options.Maps.PinPath, "sessions"), nil); err == nil {
			spec.Maps["sessions"].MaxEntries = m.MaxEntries()
			m.Close()
		}
	}
	spec.Maps["aliases"].MaxEntries = spec.Maps["sessions"].MaxEntries
	spec.Maps["crowd"].MaxEntries = max(spec.Maps["sessions"].MaxEntries/sharers, 1)
	spec.Maps["throng"].MaxEntries = spec.Maps["crowd"].MaxEntries
	if d.spec = spec; !d.cfg.Ephemeral {
		options.MapReplacements = map[string]*ebpf.Map{}
		for _, name := range []string{"speakers", "proxies"} {
			m, err := d.lasting(spec.Maps[name])
			if err != nil {
				return err
			}
			defer m.Close()
			options.MapReplacements[name] = m
		}
	}
	return spec.LoadAndAssign(&d.objects, &options)
}

// lasting makes or takes over a table that stays when the others get another
// shape: what is in it is not known to the next agent.
func (d *Datapath) lasting(spec *ebpf.MapSpec) (*ebpf.Map, error) {
	dir := filepath.Join(d.cfg.dir(), lastingDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for pins: %w", err)
	}
	return ebpf.NewMapWithOptions(spec, ebpf.MapOptions{PinPath: dir})
}

// prepare makes the directories for pins and returns the one for maps.
func (d *Datapath) prepare() (string, error) {
	if err := mountBPF(filepath.Join(d.cfg.RunDir, "bpf")); err != nil {
		return "", err
	}
	maps := filepath.Join(d.cfg.dir(), d.layout)
	for _, dir := range []string{maps, d.linkDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", fmt.Errorf("make a directory for pins: %w", err)
		}
	}
	return maps, nil
}

func (d *Datapath) linkDir() string { return filepath.Join(d.cfg.dir(), "links") }

// MTU is the largest packet of a Network on this node, when want bytes are
// wanted; 0 wants as much as the underlay allows.
func (d *Datapath) MTU(want int) int {
	most := int(d.mtu.Load()) - d.cfg.overhead()
	if want <= 0 || want > most {
		return most
	}
	return want
}

// locked runs f alone, in the namespace of the node.
func (d *Datapath) locked(f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("the data path of node " + d.cfg.Node + " is closed")
	}
	return d.ns.do(f)
}

// Close lets go of the kernel state, which stays and goes on.
func (d *Datapath) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var errs []error
	for _, a := range d.links {
		errs = append(errs, a.link.Close())
	}
	for _, l := range d.connects {
		errs = append(errs, l.Close())
	}
	for _, s := range d.stands {
		errs = append(errs, s.close())
	}
	if d.judge != nil {
		errs = append(errs, d.judge.Close())
	}
	if d.objects.FromWorkload != nil {
		errs = append(errs, d.objects.Close())
	}
	return errors.Join(append(errs, d.ns.close())...)
}
