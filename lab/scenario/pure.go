package scenario

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/explain"
	"moire.dev/moire/snapshot"
)

// Order says in which order Pure hands the objects over. The answers must be
// the same in all.
type Order int

// Orders.
const (
	InOrder  Order = iota
	Reversed       // the last object first
	Split          // one object at a time, compiling after each
	Squashed       // all steps at once: a new Compiler for every check
)

// Orders lists all of them.
var Orders = []Order{InOrder, Reversed, Split, Squashed}

// String is the name of the order.
func (o Order) String() string {
	return [...]string{"in order", "reversed", "split", "squashed"}[o]
}

// Pure is stage 1: compile and explain, nothing else.
type Pure struct {
	World
	order    Order
	compiler *compile.Compiler
	objects  map[string]runtime.Object
	ids      []string // in the order of their first coming
	snaps    map[string]*snapshot.Snapshot
	problems []v1alpha1.Problem
}

// NewPure returns a Pure without any objects.
func NewPure(order Order) *Pure {
	return &Pure{World: NewWorld(), order: order, compiler: compile.NewCompiler(), objects: map[string]runtime.Object{}}
}

// Apply implements Runner.
func (p *Pure) Apply(put, del []runtime.Object) error {
	for _, o := range del {
		delete(p.objects, ID(o))
		p.ids = slices.DeleteFunc(p.ids, func(id string) bool { return id == ID(o) })
	}
	for _, o := range put {
		id := ID(o)
		if _, known := p.objects[id]; !known {
			p.ids = append(p.ids, id)
		}
		p.objects[id] = o
		if p.order == Split {
			p.compile()
		}
	}
	p.compile()
	return nil
}

// Move implements Runner.
func (p *Pure) Move(w *v1alpha1.Workload) error { return p.Apply([]runtime.Object{w}, nil) }

// Health implements Runner.
func (p *Pure) Health(workload string, well bool) error {
	p.Ill(workload, !well)
	p.compile()
	return nil
}

// Away implements Runner.
func (p *Pure) Away(node string, away bool) error {
	p.Gone(node, away)
	p.compile()
	return nil
}

// Answer implements Runner.
func (p *Pure) Answer(name string, addrs []netip.Addr) error {
	p.Resolves(name, addrs)
	p.compile()
	return nil
}

func (p *Pure) compile() {
	ids := slices.Clone(p.ids)
	if p.order == Reversed {
		slices.Reverse(ids)
	}
	objects := make([]runtime.Object, len(ids))
	for i, id := range ids {
		objects[i] = p.objects[id]
	}
	if p.order == Squashed {
		p.compiler = compile.NewCompiler()
	}
	in := compile.Offline(objects...)
	p.Set(in)
	p.snaps, p.problems = p.compiler.Compile(in)
}

// Check implements Runner.
func (p *Pure) Check(c *Check) error {
	if c.Problem != "" {
		if !slices.ContainsFunc(p.problems, func(x v1alpha1.Problem) bool { return x.Code == c.Problem && x.Object == c.Object }) {
			return fmt.Errorf("line %d: %s: there is no such Problem among %v", c.Line, c.Text, p.problems)
		}
		return nil
	}
	a := explain.Packet(c.Query(), p.snaps)
	if err := c.Compare(told(a)); err != nil {
		var why bytes.Buffer
		a.Text(&why)
		return fmt.Errorf("%w\n%s", err, why.String())
	}
	return nil
}

// Query is the question of a Check to explain.
func (c *Check) Query() explain.Query {
	return explain.Query{From: c.From, To: c.To, Network: c.Network, Protocol: c.Protocol, Port: c.Port, IPv6: c.IPv6, Request: c.Request}
}

// told is what explain says.
func told(a explain.Answer) Seen {
	seen := Seen{Verdict: Deny, Rule: a.Rule, Egress: a.EgressRule, Ingress: a.IngressRule, Whole: true, Service: a.Service, As: a.TranslatedSource, At: a.TranslatedDestination}
	switch {
	case a.Error != "":
		seen.Verdict = Unattached
	case a.Allow:
		seen.Verdict = Allow
	case a.Depends:
		seen.Verdict = Depends
	case a.Proxy:
		seen.Verdict = Proxy
	}
	if m := a.Mesh; m != nil {
		seen.Route, seen.Status = m.Route, m.Status
	}
	if a.Shadow != nil {
		seen.Shadow, seen.ShadowRule = Deny, a.Shadow.Rule
		if a.Shadow.Allow {
			seen.Shadow = Allow
		}
	}
	for _, w := range Ways(a) {
		switch {
		case w.Backend == "":
		case w.Workload != "":
			seen.Backends = append(seen.Backends, w.Workload)
		default:
			seen.Backends = append(seen.Backends, w.Backend)
		}
		for i, function := range w.Via {
			if i == len(seen.Via) {
				seen.Via = append(seen.Via, nil)
			}
			seen.Via[i] = append(seen.Via[i], function)
		}
	}
	slices.Sort(seen.Backends)
	seen.Backends = slices.Compact(seen.Backends)
	for i := range seen.Via {
		slices.Sort(seen.Via[i])
		seen.Via[i] = slices.Compact(seen.Via[i])
	}
	return seen
}

// Ways are all that a hash may choose, or the only one that there is.
func Ways(a explain.Answer) []explain.Way {
	if len(a.Ways) > 0 {
		return a.Ways
	}
	w := explain.Way{Backend: a.Backend, Via: a.Via}
	if d := a.Destination; d != nil && d.Workload != "" {
		w.Workload = d.Project + "/" + d.Workload
	}
	return []explain.Way{w}
}

// Problems of the last compile.
func (p *Pure) Problems() []v1alpha1.Problem { return p.problems }

// Dump is the text of all snapshots.
func (p *Pure) Dump() string {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(p.snaps)) {
		p.snaps[name].Dump(&b)
	}
	return b.String()
}
