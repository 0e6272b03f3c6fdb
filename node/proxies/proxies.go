package proxies

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/node/keep"
	"moire.dev/moire/node/mesh"
	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot"
)

// Mode says how many proxies there are.
type Mode string

// Modes.
const (
	Node     Mode = "node"     // one for all
	Project  Mode = "project"  // one for each project
	Workload Mode = "workload" // one for each Workload
	Off      Mode = "off"      // none: what needs one is refused
)

// Modes lists them all.
var Modes = []Mode{Node, Project, Workload, Off}

// Options of Proxies. All are needed, but Take.
type Options struct {
	// Node is its name, and the beginning of the names of its proxies.
	Node string
	Mode Mode
	// Program is the path of moire-proxy.
	Program string
	// Dir is for sockets, Logs for what the processes say, Cgroup for their
	// cgroups: directories of this node alone.
	Dir, Logs, Cgroup string
	// Workers of each proxy.
	Workers int
	// Mark of their connections to applications.
	Mark uint32
	// Changed is told that a proxy takes connections now, or that it does not, and
	// of everything else that may change an answer given here.
	Changed func(Group)
	// Take is given what the proxies tell of requests.
	Take func([]record.Record)
	Log  *slog.Logger
}

const (
	// grace is how long a proxy without a sign of life still counts as there.
	grace = 2 * time.Second
	// firstPatience is how long one that was never there is waited for.
	firstPatience = 5 * time.Second
	// patience is how long one that is there may take to answer.
	patience = 10 * time.Second
	// linger is how long one stays that nobody needs.
	linger = time.Minute
)

// ErrNotYet: a proxy has not answered, but soon will have.
var ErrNotYet = errors.New("a proxy has not taken its configuration yet")

// Proxies of one node.
type Proxies struct {
	o       Options
	records *door.Records

	mu      sync.Mutex
	groups  map[string]*group // by name
	ctx     context.Context   // of Run; nil: it has not begun, or is over
	running sync.WaitGroup
}

// New makes the proxies of a node. It starts nothing: see Run.
func New(o Options) (*Proxies, error) {
	for _, dir := range []string{o.Dir, o.Logs} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("a place for proxies: %w", err)
		}
	}
	p := &Proxies{o: o, groups: map[string]*group{}}
	p.records = &door.Records{Path: filepath.Join(o.Dir, "records"), Take: o.Take, Log: o.Log}
	return p, nil
}

// Name of the proxy that speaks for an interface; "": none does.
func (p *Proxies) Name(k snapshot.AttachmentKey) string {
	switch p.o.Mode {
	case Project:
		return p.o.Node + "/" + k.Project
	case Workload:
		return p.o.Node + "/" + k.Project + "/" + k.Workload
	case Off:
		return ""
	}
	return p.o.Node
}

// Run keeps the proxies until ctx is done, and leaves them running.
func (p *Proxies) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p.mu.Lock()
	p.ctx = ctx
	for _, g := range p.groups {
		p.begin(g)
	}
	p.mu.Unlock()
	err := p.records.Run(ctx)
	stop()
	p.mu.Lock()
	p.ctx = nil
	p.mu.Unlock()
	p.running.Wait()
	return err
}

// begin runs a group; the caller has the lock.
func (p *Proxies) begin(g *group) {
	ctx := p.ctx
	g.begun = time.Now()
	p.running.Go(func() {
		if err := g.run(ctx); err != nil {
			p.o.Log.Error("a proxy cannot be kept", "proxy", g.name, "error", err)
		}
	})
}

// Need says which proxies are needed. Those that are not there are started, the
// others are ended when nobody has needed them for a while.
func (p *Proxies) Need(names map[string]bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range names {
		g := p.groups[name]
		if g == nil || g.over() {
			var err error
			if g, err = p.newGroup(name); err != nil {
				return fmt.Errorf("make a place for the proxy %s: %w", name, err)
			}
			p.groups[name] = g
			if p.ctx != nil {
				p.begin(g)
			}
		}
		g.idle = time.Time{}
	}
	for name, g := range p.groups {
		switch {
		case names[name]:
		case g.over():
			delete(p.groups, name)
		case g.idle.IsZero():
			g.idle = time.Now()
		case time.Since(g.idle) > linger:
			g.end()
		}
	}
	return nil
}

// Input is what the proxies must be.
type Input struct {
	// Snapshot in force, with addresses in the place of names.
	Snapshot *snapshot.Snapshot
	// Interfaces by the name of the proxy that speaks for them, sorted by Key.
	Interfaces map[string][]mesh.Interface
	// Sockets of their namespaces; the same pointer, the same descriptors.
	Sockets map[string]*door.Sockets
	// Certificates by SPIFFE ID.
	Certificates map[string]mesh.Certificate
}

// Set makes the proxies that are needed what they must be. Descriptors of an
// earlier Set that are not in this one may be closed when it has returned.
func (p *Proxies) Set(in Input) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.groups {
		g.set(&in, "unix:"+p.records.Path, &p.o)
	}
}

// Answered is nil when every proxy serves what it must be, or is not there; an
// error that is ErrNotYet; or why one of them refuses.
func (p *Proxies) Answered() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var wait error
	for _, g := range p.sorted() {
		if err := g.answered(); errors.Is(err, ErrNotYet) {
			wait = err
		} else if err != nil {
			return err
		}
	}
	return wait
}

// Serves says why the proxy of an interface does not serve it as it must be
// served; "": it does.
func (p *Proxies) Serves(k snapshot.AttachmentKey) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.groups[p.Name(k)]
	if g == nil {
		return "no proxy runs on this node"
	}
	return g.serves(k)
}

// Group is one proxy as the kernel side has to know it.
type Group struct {
	Name, Cgroup string
	Workers      int
	Up           bool
	// Sure: that it is not up is certain, not only that it has not been heard yet.
	Sure bool
}

// Groups lists the proxies that are needed, sorted by name.
func (p *Proxies) Groups() []Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Group
	for _, g := range p.sorted() {
		if g.idle.IsZero() {
			out = append(out, Group{g.name, g.cgroup, p.o.Workers, g.up(), g.sure()})
		}
	}
	return out
}

// Ejected lists the endpoints that some proxy has put aside, each once.
func (p *Proxies) Ejected() []door.Ejection {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []door.Ejection
	for _, g := range p.sorted() {
		out = append(out, g.door.Status().Ejected...)
	}
	slices.SortFunc(out, func(a, b door.Ejection) int {
		return strings.Compare(a.Cluster+" "+a.Address, b.Cluster+" "+b.Address)
	})
	return slices.CompactFunc(out, func(a, b door.Ejection) bool { return a.Cluster == b.Cluster && a.Address == b.Address })
}

// Replace has every proxy replaced by another process, one after the other.
func (p *Proxies) Replace(ctx context.Context) error {
	p.mu.Lock()
	all := p.sorted()
	p.mu.Unlock()
	for _, g := range all {
		if err := g.keeper.Replace(ctx); err != nil {
			return fmt.Errorf("proxy %s: %w", g.name, err)
		}
	}
	return nil
}

// sorted lists the groups by name; the caller has the lock.
func (p *Proxies) sorted() []*group {
	out := make([]*group, 0, len(p.groups))
	for _, g := range p.groups {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *group) int { return strings.Compare(a.name, b.name) })
	return out
}

// Clean ends all proxies of a node for good, and forgets them.
func Clean(dir, cgroup string) error {
	return errors.Join(keep.Kill(cgroup), os.RemoveAll(dir))
}
