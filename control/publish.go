package control

import (
	"maps"
	"slices"
	"sync"

	"moire.dev/moire/snapshot"
)

// publisher hands snapshots to discovery. Captures go on top of what was
// compiled: they come and go without a compile, and are not kept anywhere.
type publisher struct {
	out func(node string, s *snapshot.Snapshot)

	mu       sync.Mutex
	compiled map[string]*snapshot.Snapshot
	captures map[string]*capturing // by id
}

func newPublisher(out func(string, *snapshot.Snapshot)) *publisher {
	return &publisher{out: out, compiled: map[string]*snapshot.Snapshot{}, captures: map[string]*capturing{}}
}

// publish takes what the compiler made for a node; nil: nothing any more.
func (p *publisher) publish(node string, s *snapshot.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s == nil {
		delete(p.compiled, node)
		p.out(node, nil)
		return
	}
	p.compiled[node] = s
	p.out(node, p.overlaid(s))
}

// overlaid is the snapshot with the captures that concern it. The caller holds mu.
func (p *publisher) overlaid(s *snapshot.Snapshot) *snapshot.Snapshot {
	var with map[string]snapshot.Capture
	for id, c := range p.captures {
		if c.concerns(s) {
			if with == nil {
				with = maps.Clone(s.Captures)
			}
			if with == nil {
				with = map[string]snapshot.Capture{}
			}
			with[id] = c.what
		}
	}
	if with == nil {
		return s
	}
	next := *s
	next.Captures = with
	return &next
}

// begin adds a capture and tells the nodes that it concerns; they are returned
// with the version that has it. ok is false when there are too many already.
func (p *publisher) begin(c *capturing) (versions map[string]snapshot.Version, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := 0
	for _, o := range p.captures {
		if o.project == c.project {
			same++
		}
	}
	if same >= maxCapturesEach || len(p.captures) >= maxCapturesAll {
		return nil, false
	}
	p.captures[c.what.ID] = c
	versions = map[string]snapshot.Version{}
	for _, node := range slices.Sorted(maps.Keys(p.compiled)) {
		if s := p.compiled[node]; c.concerns(s) {
			next := p.overlaid(s)
			p.out(node, next)
			versions[node] = next.Version()
		}
	}
	return versions, true
}

// end takes the capture away.
func (p *publisher) end(c *capturing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.captures, c.what.ID)
	for node, s := range p.compiled {
		if c.concerns(s) {
			p.out(node, p.overlaid(s))
		}
	}
}

// captured hands what a node saw to whoever waits for it.
func (p *publisher) captured(node string, cs []snapshot.Captured) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range cs {
		c := p.captures[one.Capture]
		if c == nil || !c.concerns(p.compiled[node]) || !slices.Contains(c.what.VNIs, one.VNI) {
			continue // over already, or nothing that this node may tell
		}
		one.Node = node
		c.take(one)
	}
}

// capturing is one capture that goes on.
type capturing struct {
	project string // who asks; "": all
	what    snapshot.Capture
	out     chan snapshot.Captured
	missed  uint64 // of publisher.mu
}

func (c *capturing) concerns(s *snapshot.Snapshot) bool {
	return s != nil && slices.ContainsFunc(c.what.VNIs, func(v snapshot.VNI) bool { _, has := s.Networks[v]; return has })
}

// take never waits: what comes too fast is counted.
func (c *capturing) take(one snapshot.Captured) {
	select {
	case c.out <- one:
	default:
		c.missed++
	}
}
