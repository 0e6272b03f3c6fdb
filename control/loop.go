package control

import (
	"context"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/snapshot"
)

const (
	// debounce gathers changes that come together.
	debounce = 10 * time.Millisecond
	// comeBack is how long, after a start, we wait for nodes that were
	// connected before: what they attached last may not be saved. They try at
	// least every 5 s.
	comeBack = 7 * time.Second
	// judgeEvery is how often, of more than manyObjects, it is looked at what
	// their statuses shall say: that costs more than to compile one change.
	judgeEvery  = 250 * time.Millisecond
	manyObjects = 500
)

// facts is everything known at one moment and what follows from it.
type facts struct {
	in       *compile.Input
	snaps    map[string]*snapshot.Snapshot
	problems map[string]v1alpha1.Problem // the first of each object
	nodes    map[string]nodeWorld
}

// loop owns the facts: it alone reads intent and world, compiles and publishes.
type loop struct {
	intent      *intent
	world       *world
	keeper      *keeper
	allocator   *allocator
	resolver    *resolver
	fetcher     *fetcher
	authorities *authorities
	publish     func(node string, s *snapshot.Snapshot)
	awayAfter   time.Duration
	log         *slog.Logger
	now         func() time.Time
	bell        chan struct{}

	current atomic.Pointer[facts]
	// told is closed and replaced when current is.
	told atomic.Pointer[chan struct{}]

	// Below: only of the goroutine of run.
	compiler   *compile.Compiler
	published  map[string]bool
	waitFor    map[string]bool // nodes that were connected before the start
	waitUntil  time.Time
	awayAt     time.Time // when the next node may count as away; zero: none
	last       seenCounts
	complained map[v1alpha1.Problem]bool
	judged     time.Time // when statuses were looked at last
	owed       bool      // they are to be looked at again
}

// seenCounts is what the last pass was made from.
type seenCounts struct {
	facts, signs uint64
	alloc        *allocations
	names        *names
	keys         *keySets
	bundles      *bundles
	any          bool
}

// others is all but the signs, which are for statuses alone.
func (s seenCounts) others() seenCounts {
	s.signs = 0
	return s
}

func newLoop(log *slog.Logger, now func() time.Time, publish func(string, *snapshot.Snapshot)) *loop {
	l := &loop{log: log, now: now, publish: publish, awayAfter: DefaultAwayAfter, bell: make(chan struct{}, 1),
		compiler: compile.NewCompiler(), published: map[string]bool{}, complained: map[v1alpha1.Problem]bool{}}
	l.authorities = newAuthorities(log, now, l.wake)
	told := make(chan struct{})
	l.told.Store(&told)
	return l
}

// wake asks for a pass soon.
func (l *loop) wake() {
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// Changed returns a channel that is closed at the next change of the facts.
func (l *loop) Changed() <-chan struct{} { return *l.told.Load() }

// run makes passes until ctx ends. It must be called only when intent is
// synced and the rows are loaded.
func (l *loop) run(ctx context.Context) {
	l.expect()
	for {
		l.pass()
		if ctx.Err() != nil {
			return
		}
		timer := time.NewTimer(l.pause())
		select {
		case <-ctx.Done():
		case <-l.bell:
		case <-timer.C:
		}
		timer.Stop()
		if !sleep(ctx, debounce) {
			return
		}
	}
}

// pause is how long there is nothing to do unless something changes.
func (l *loop) pause() time.Duration {
	wait := time.Hour
	if len(l.waitFor) > 0 {
		wait = max(l.waitUntil.Sub(l.now()), debounce)
	}
	if l.owed {
		wait = min(wait, max(l.judged.Add(judgeEvery).Sub(l.now()), debounce))
	}
	if !l.awayAt.IsZero() {
		wait = min(wait, max(l.awayAt.Sub(l.now()), debounce))
	}
	return wait
}

// expect notes which nodes were connected when the rows were written.
func (l *loop) expect() {
	nodes, _, _ := l.world.all()
	l.waitFor = map[string]bool{}
	for name, n := range nodes {
		if n.owner == l.world.self && n.report != nil && l.keeper.wasConnected(name) {
			l.waitFor[name] = true
		}
	}
	l.waitUntil = l.now().Add(comeBack)
}

// holding reports whether nodes that may know more than we do are still to
// come.
func (l *loop) holding(nodes map[string]nodeWorld, in *compile.Input) bool {
	for name := range l.waitFor {
		if n := nodes[name]; n.fresh || n.connected() && !n.here || in.Nodes[name] == nil {
			delete(l.waitFor, name)
		}
	}
	if len(l.waitFor) > 0 && !l.now().Before(l.waitUntil) {
		for name := range l.waitFor {
			l.log.Info("a node that was connected before has not come back; going on with what it said last", "node", name)
		}
		clear(l.waitFor)
	}
	return len(l.waitFor) > 0
}

// pass looks at everything once and does what follows from it.
func (l *loop) pass() {
	old := l.current.Load()
	if old == nil {
		old = &facts{in: &compile.Input{}}
	}
	next := &facts{in: &compile.Input{}, snaps: old.snaps, problems: old.problems}
	intentChanged := l.intent.read(old.in, next.in)
	nodes, factCount, signCount := l.world.all()
	alloc := l.keeper.allocations()
	next.nodes = nodes
	next.in.NodeNumbers, next.in.Identities = alloc.nodes, alloc.identities
	next.in.Reports = reports(nodes, next.in.Nodes)
	next.in.Away, l.awayAt = awayNodes(next.in.Nodes, nodes, l.waitFor, old.in.Away, l.now(), l.awayAfter)
	awayChanged := !maps.Equal(next.in.Away, old.in.Away)
	resolved := l.keeper.resolved()
	next.in.Resolved = resolved.addresses()
	fetched := l.keeper.keySets()
	next.in.KeySets = fetched.sets()
	shown := l.authorities.current.Load()
	next.in.Bundles = shown.forCompiler()
	seen := seenCounts{facts: factCount, signs: signCount, alloc: alloc, names: resolved, keys: fetched, bundles: shown, any: true}
	if !intentChanged && !awayChanged && seen == l.last {
		l.settle(old)
		return
	}
	recompile := intentChanged || awayChanged || seen.others() != l.last.others() || !l.last.any
	l.last = seen
	if recompile {
		l.compile(old, next)
	} else {
		l.settle(next)
	}
	l.current.Store(next)
	told := make(chan struct{})
	close(*l.told.Swap(&told))
}

// reports are the words of the nodes that exist; who was deleted is not heard
// until it joins again.
func reports(nodes map[string]nodeWorld, exist map[string]*v1alpha1.Node) map[string]*snapshot.Report {
	out := make(map[string]*snapshot.Report, len(nodes))
	for name, n := range nodes {
		if n.report != nil && exist[name] != nil {
			out[name] = n.report
		}
	}
	return out
}

// compile turns the facts into snapshots and publishes them; then it orders what
// is missing and what shall be said.
func (l *loop) compile(old, next *facts) {
	l.forgetDeleted(old, next)
	snaps, problems := l.compiler.Compile(next.in)
	if l.holding(next.nodes, next.in) {
		l.last.any = false // look again, also when nothing changes
	} else {
		l.publishAll(snaps)
	}
	problems = append(problems, unresolved(next.in, l.keeper.resolved())...)
	problems = append(problems, unkeyed(next.in, l.keeper.keySets(), l.now().Unix())...)
	next.snaps, next.problems = snaps, first(problems)
	l.complain(problems)
	needs := l.compiler.NeedsOf(next.in)
	l.resolver.want(needs.Names)
	l.fetcher.want(needs.KeySets)
	l.judge(next, needs)
}

// settle judges what is owed, when it is time.
func (l *loop) settle(f *facts) {
	if l.owed && l.now().Sub(l.judged) >= judgeEvery {
		l.judge(f, l.compiler.NeedsOf(f.in))
	}
}

// judge orders what is missing and what statuses shall say. Where nothing is
// missing and there is much to look at, it waits for its time.
func (l *loop) judge(f *facts, needs compile.Needs) {
	urgent := len(needs.VNIs)+len(needs.Identities)+len(needs.NodeNumbers)+len(needs.Blocks)+len(needs.Addresses) > 0
	many := len(f.in.Services)+len(f.in.Policies)+len(f.in.Links)+len(f.in.FloatingIPs)+len(f.in.Networks)+len(f.in.HTTPRoutes)+len(f.in.BackendPolicies) > manyObjects
	if l.owed = many && !urgent && l.now().Sub(l.judged) < judgeEvery; l.owed {
		return
	}
	l.judged = l.now()
	l.allocator.offer(&order{in: f.in, needs: needs, judgements: conditions(f.in, l.intent.newest, needs, f.problems, l.compiler.StatusesOf(f.in), l.authorities.status)})
}

// publishAll hands over the snapshots, and takes back those of nodes that are
// gone.
func (l *loop) publishAll(snaps map[string]*snapshot.Snapshot) {
	for name, s := range snaps {
		l.publish(name, s)
		l.published[name] = true
	}
	for name := range l.published {
		if snaps[name] == nil {
			l.publish(name, nil)
			delete(l.published, name)
		}
	}
}

// forgetDeleted drops what nodes said whose objects are gone.
func (l *loop) forgetDeleted(old, next *facts) {
	if maps.Equal(old.in.Nodes, next.in.Nodes) && len(old.nodes) == len(next.nodes) {
		return
	}
	declared := make(map[string]bool, len(next.in.Nodes))
	for name := range next.in.Nodes {
		declared[name] = true
	}
	l.keeper.setDeclared(declared)
	for name := range next.nodes {
		if declared[name] {
			continue
		}
		l.world.forget(name)
		if old.in.Nodes[name] != nil || l.current.Load() == nil {
			l.keeper.drop(name)
		}
	}
}

// complain logs each problem once.
func (l *loop) complain(problems []v1alpha1.Problem) {
	now := make(map[v1alpha1.Problem]bool, len(problems))
	for _, p := range problems {
		now[p] = true
		if !l.complained[p] {
			l.log.Warn("the intent has a problem", "problem", p.Error())
		}
	}
	l.complained = now
}
