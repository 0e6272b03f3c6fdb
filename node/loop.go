package node

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"moire.dev/moire/datapath"
	"moire.dev/moire/ipam"
	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// pool gives out addresses and MACs; *ipam.Pool.
type pool interface {
	Take(snapshot.AttachmentKey, snapshot.VNI, []snapshot.Block, ipam.Families) ([]netip.Addr, error)
	TakeStatic(snapshot.AttachmentKey, snapshot.VNI, []netip.Addr) error
	MAC(snapshot.AttachmentKey, uint16) (snapshot.MAC, error)
	Release(snapshot.AttachmentKey) error
	Held() []ipam.Held
}

// plug is one interface to be made or repaired.
type plug struct {
	Key                 snapshot.AttachmentKey
	Host, Netns, IfName string
	MAC                 snapshot.MAC
	Addrs               []netip.Addr
	Prefixes, Linked    []netip.Prefix
	MTU                 int // bytes; 0: what the underlay allows
	Default             datapath.DefaultRoute
	DHCP, Tap           bool
	Owner, Group        uint32 // of the tap
}

// wiring makes interfaces.
type wiring interface {
	// Plug makes or repairs; when all is well it changes nothing.
	Plug(plug) error
	// Unplug removes; what is gone is no error.
	Unplug(host string) error
	// Plugged lists the node's ends that are there.
	Plugged() ([]string, error)
	// MakeNetns makes a network namespace that is shown at a path, RemoveNetns
	// removes it; what is there, or gone, already is no error.
	MakeNetns(path string) error
	RemoveNetns(path string) error
	// Repairs counts what was not as it should be, and says which was last.
	Repairs() (uint64, string)
	// MTU is what an interface gets, in bytes, when want is wanted; 0 wants as
	// much as the underlay allows.
	MTU(want int) int
}

// controlPlane is what the loop needs of it.
type controlPlane interface {
	Report(snapshot.Report)
	Ack(v snapshot.Version, applied bool, errText string)
	Connected() bool
}

// snapshots keeps the last good snapshot on disk.
type snapshots interface {
	load() (*snapshot.Snapshot, error) // nil, nil: there is none
	save(*snapshot.Snapshot) error
}

// Rhythms of the loop.
const (
	idleTick   = time.Second            // nobody waits
	busyTick   = 100 * time.Millisecond // somebody waits for an answer
	auditEvery = 5 * time.Second        // are all interfaces still there?
	// compareEvery is how often all of the kernel's tables are compared.
	compareEvery = 10 * time.Second
	awayGrace    = 2 * time.Second // a control plane is away after that
	// Alone, a node can do nothing in a Network that it does not know; an agent
	// that has just started may still be on its way to the control plane.
	unknownGrace = 8 * time.Second
	firstRetry   = time.Second // of a snapshot that failed
	lastRetry    = 30 * time.Second
	lostEvery    = 10 * time.Second // how often lost records alone make a report
	staleGrant   = 1500 * time.Millisecond
	// To make an interface takes tens of milliseconds: what waits behind many
	// of them, such as a snapshot, has its turn after a few.
	plugsPerStep    = 8
	requestsPerStep = 32
)

// loop owns the state of the node. Everything that is not marked as shared is
// touched by run alone.
type loop struct {
	cfg        Config
	log        *slog.Logger
	now        func() time.Time
	pool       pool
	wiring     wiring
	appliers   appliers
	up         controlPlane
	disk       *disk
	snapshots  snapshots
	watcher    watcher
	lost       func() uint64 // records
	health     func() []snapshot.Health
	identities identifier // nil: nobody gets certificates
	// resolve puts addresses in the place of names.
	resolve func(State) (*snapshot.Snapshot, uint64)
	// lacks says what an interface still needs of its proxy; "": nothing.
	lacks func(snapshot.AttachmentKey) string
	// ails says what is wrong with the proxies; "": nothing.
	ails func() string

	// Shared.
	requests chan *request
	exits    chan *attachment
	wake     chan struct{} // has room for one
	inbox    atomic.Pointer[snapshot.Snapshot]
	view     atomic.Pointer[view]
	started  chan struct{} // closed when view has something
	stirred  atomic.Bool

	ctx      context.Context // of run
	since    time.Time
	attached map[snapshot.AttachmentKey]*attachment
	waiting  []*request
	answers  []func()           // to be sent at the end of the step
	plugs    int                // interfaces made in this step
	backlog  bool               // more of them wait
	linked   linked             // of the newest snapshot
	named    *snapshot.Snapshot // that resolv.conf files follow

	// wanted is what the control plane said last and was not refused; good is
	// what was enforced last. They differ while wanted cannot be enforced.
	wanted, good *snapshot.Snapshot
	saved        *snapshot.Snapshot // what is on disk, of these
	versions     versions
	dirty        bool // locals changed, or something was not enforced completely
	retry        time.Time
	pause        time.Duration
	held         *snapshot.Snapshot // waits for consent
	heldWhy      string
	lockout      string   // why the firewall only counts
	accepted     accepted // risks
	failure      string   // of wanted or held; for people and the control plane
	enforced     time.Time
	repairs      repairs

	away     time.Time // since when the control plane is; zero: connected
	watched  time.Time
	audited  time.Time
	reported *snapshot.Report
	believed *snapshot.Snapshot // of which identities was told last
	lostTold time.Time
}

type versions struct {
	wanted, good snapshot.Version
	// since when each is.
	wantedSince, goodSince time.Time
}

// Snapshot takes over what this node must be; the latest counts.
func (l *loop) Snapshot(s *snapshot.Snapshot) {
	l.inbox.Store(s)
	l.rouse()
}

// stir makes the next step apply again, soon: what an applier adds to the
// snapshot is another thing now. Any goroutine may.
func (l *loop) stir() {
	l.stirred.Store(true)
	l.rouse()
}

// rouse makes the next step come at once. Any goroutine may.
func (l *loop) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// request is something that somebody waits for.
type request struct {
	ctx     context.Context
	attach  *local.Attach
	detach  *local.Detach
	consent *local.Consent
	answer  chan answer // has room for one

	born     uint64 // of attach.PID
	deadline time.Time
	keys     []snapshot.AttachmentKey
	fresh    []snapshot.AttachmentKey // made by this request
}

type answer struct {
	attached local.Attached
	err      error
}

// newLoop makes the loop without what it works on.
func newLoop(cfg Config, log *slog.Logger) *loop {
	return &loop{
		cfg: cfg, log: log, now: time.Now,
		requests: make(chan *request), exits: make(chan *attachment),
		wake: make(chan struct{}, 1), started: make(chan struct{}),
		attached: map[snapshot.AttachmentKey]*attachment{},
		resolve:  func(s State) (*snapshot.Snapshot, uint64) { return s.Snapshot, 0 },
		lacks:    func(snapshot.AttachmentKey) string { return "" },
		ails:     func() string { return "" },
	}
}

// run is the loop. It returns when ctx is done.
func (l *loop) run(ctx context.Context) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	l.ctx, l.since, l.away = watching, l.now(), l.now()
	if err := l.start(); err != nil {
		return err
	}
	l.step()
	close(l.started)
	tick := time.NewTimer(l.rhythm())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			l.refuseAll()
			return nil
		case r := <-l.requests:
			l.begin(r)
		case a := <-l.exits:
			l.ended(a)
		case <-l.wake:
		case <-tick.C:
		}
		l.drain()
		if l.now().Sub(l.watched) >= idleTick {
			l.watch()
		}
		l.step()
		tick.Reset(l.rhythm())
	}
}

// drain takes what came meanwhile, so that many requests share one step.
func (l *loop) drain() {
	for range requestsPerStep {
		select {
		case r := <-l.requests:
			l.begin(r)
		case a := <-l.exits:
			l.ended(a)
		default:
			return
		}
	}
}

func (l *loop) rhythm() time.Duration {
	if l.backlog {
		return 0
	}
	if len(l.waiting) > 0 {
		return busyTick
	}
	return idleTick
}

// step moves everything as far as it can go now.
func (l *loop) step() {
	l.connection()
	if s := l.inbox.Swap(nil); s != nil {
		l.receive(s)
	}
	if l.stirred.Swap(false) {
		l.dirty = true
	}
	l.gateways()
	l.plugs, l.backlog = 0, false
	for _, a := range l.sorted() {
		l.advance(a)
	}
	l.report()
	l.identify()
	l.apply()
	for _, a := range l.sorted() {
		l.settle(a)
	}
	l.answerAll()
	l.renewResolv()
	l.report() // what enforcing has shown
	l.show()
	l.sendAnswers()
}

// connection notes since when the control plane is away.
func (l *loop) connection() {
	switch {
	case l.up.Connected():
		if !l.away.IsZero() && l.identities != nil {
			l.identities.back()
		}
		l.away = time.Time{}
	case l.away.IsZero():
		l.away = l.now()
	}
}

// alone: the control plane does not hear us, and not just for a moment.
func (l *loop) alone() bool { return !l.away.IsZero() && l.now().Sub(l.away) >= awayGrace }

// sorted lists the attachments by key.
func (l *loop) sorted() []*attachment {
	return slices.SortedFunc(maps.Values(l.attached), func(a, b *attachment) int { return a.Key.Compare(b.Key) })
}

// present lists the attachments whose interface is there.
func (l *loop) present() []*attachment {
	return slices.DeleteFunc(l.sorted(), func(a *attachment) bool { return !a.here() })
}

// report tells the control plane, when something changed.
func (l *loop) report() {
	r := snapshot.Report{Node: l.cfg.Name, Address: l.cfg.Address, Agent: l.cfg.Version, Kernel: kernelRelease(), RecordsLost: l.lost(),
		Repairs: l.repairs.count, LastRepair: l.repairs.last, Held: l.waits(), Health: l.health(), Proxies: l.ails()}
	for _, a := range l.sorted() {
		if a.stage != leaving {
			r.Attachments = append(r.Attachments, a.report())
		}
	}
	if l.good != nil {
		r.Trusts = snapshot.MarksOf(l.good.Trusts)
	}
	s := l.newest()
	for _, k := range slices.SortedFunc(maps.Keys(s.Blocks), snapshot.BlockKey.Compare) {
		r.Blocks = append(r.Blocks, s.Blocks[k])
	}
	if l.reported != nil && sameReport(*l.reported, r) {
		if l.reported.RecordsLost == r.RecordsLost || l.now().Sub(l.lostTold) < lostEvery {
			return
		}
	}
	l.reported, l.lostTold = &r, l.now()
	l.up.Report(r)
}

// newest is what the control plane said last; never nil.
func (l *loop) newest() *snapshot.Snapshot {
	if l.wanted != nil {
		return l.wanted
	}
	return &snapshot.Snapshot{Node: l.cfg.Name}
}
