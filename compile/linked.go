package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// linkFacts are everything that the result of one Link depends on.
type linkFacts struct {
	lane   *lane
	path   []*result  // nil where the Network does not exist
	health []*healths // of the Networks of the path
	away   []string   // nodes of the path that are away, sorted
}

func (f *linkFacts) equal(o *linkFacts) bool {
	return f.lane == o.lane && slices.Equal(f.path, o.path) && slices.Equal(f.health, o.health) && slices.Equal(f.away, o.away)
}

// linked is everything that follows from one Link. It is never changed after
// it was made.
type linked struct {
	facts linkFacts
	// direct: without a chain, or with one that is bypassed.
	direct   bool
	sights   []sight // one for each Network of the path; none: nothing crosses
	chains   []snapshot.Chain
	checks   []placedCheck
	problems []v1alpha1.Problem
	message  string
	ready    bool
}

// sight is what one Network of a path sees of the others.
type sight struct {
	network *result
	rows    []snapshot.Endpoint
	others  []neighbour
}

// neighbour is a Network that another one sees, under these prefixes.
type neighbour struct {
	*result
	prefixes []netip.Prefix
}

// compileLink computes the result of one Link. old, which may be nil, gives
// the tables that are no different.
func compileLink(f linkFacts, old *linked) *linked {
	l := &linked{facts: f, problems: slices.Clone(f.lane.problems)}
	if !f.lane.open {
		return l
	}
	if i := slices.IndexFunc(f.path, func(r *result) bool { return r == nil || !r.live }); i >= 0 {
		l.message = "waiting for Network " + f.lane.path[i].String()
		return l
	}
	l.ready, l.direct, l.message = true, true, "connected"
	if len(f.lane.functions) > 0 {
		l.direct = !l.chain()
	}
	if l.direct {
		l.endToEnd()
	}
	if old != nil {
		for i := range l.sights {
			for j := range old.sights {
				if old.sights[j].network.facts.key == l.sights[i].network.facts.key && slices.Equal(old.sights[j].rows, l.sights[i].rows) {
					l.sights[i].rows = old.sights[j].rows
				}
			}
		}
	}
	return l
}

// endToEnd makes the rows of a Link without functions.
func (l *linked) endToEnd() {
	a, b := l.facts.path[0], l.facts.path[len(l.facts.path)-1]
	l.sights = []sight{l.see(a, b, 1, snapshot.ChainKey{}), l.see(b, a, 0, snapshot.ChainKey{})}
}

// see makes the rows of one Network, as it sees the Workloads of another, which
// is the given end.
func (l *linked) see(at, of *result, end int, chain snapshot.ChainKey) sight {
	ts := translations(l.facts.lane.end(end).Translate)
	out := sight{network: at, others: []neighbour{{of, prefixesOf(sightOf(of.facts.network, l.facts.lane.end(end).Translate))}}}
	for _, e := range of.endpoints {
		if of.facts.host(e.Node).external {
			continue // nobody there could translate
		}
		e.Home, e.Chain = e.Addr, chain
		e.Addr = snapshot.Addr{VNI: at.row.VNI, IP: seenAs(ts, e.Home.IP)}
		// Whoever is still there although the prefix was removed is not seen
		// from elsewhere, nor hides others.
		_, own := slices.BinarySearchFunc(at.endpoints, e.Addr, func(o snapshot.Endpoint, a snapshot.Addr) int { return o.Addr.Compare(a) })
		if own || !of.space.inside.contains(e.Home.IP) {
			continue
		}
		out.rows = append(out.rows, e)
	}
	slices.SortFunc(out.rows, func(a, b snapshot.Endpoint) int { return a.Addr.Compare(b.Addr) })
	return out
}

// add joins two sights of one Network.
func (s *sight) add(o sight) {
	s.rows = append(s.rows, o.rows...)
	slices.SortFunc(s.rows, func(a, b snapshot.Endpoint) int { return a.Addr.Compare(b.Addr) })
	s.others = append(s.others, o.others...)
}

// prefixesOf are the smallest prefixes that make up the ranges, sorted.
func prefixesOf(rs ranges) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range rs {
		out = netipx.IPRangeFrom(r.First, r.Last).AppendPrefixes(out)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// chain makes the rows and Chains of a Link with functions. False: it is
// bypassed.
func (l *linked) chain() bool {
	lane := l.facts.lane
	hops := make([][2][]snapshot.Hop, len(lane.functions))
	var dead []string
	for i := range lane.functions {
		hops[i] = l.instances(i)
		if len(hops[i][0]) == 0 {
			dead = append(dead, lane.functions[i].Name)
		}
	}
	if len(dead) > 0 {
		why := "function " + strings.Join(dead, " and function ") + " has no healthy instance"
		if lane.link.Spec.OnFailure == v1alpha1.OnFailureBypass {
			l.problems = append(l.problems, warn(about(codeNoInstance, lane.name(), "spec.via", why+", so the whole chain is bypassed", "attach one, or see why it is not healthy")))
			l.message = "the chain is bypassed: " + why
			return false
		}
		l.problems = append(l.problems, about(codeNoInstance, lane.name(), "spec.via", why+", so nothing crosses the Link", "attach one, or see why it is not healthy"))
		l.ready, l.message = false, why
	}
	last := len(l.facts.path) - 1
	for i, at := range l.facts.path {
		s := sight{network: at}
		if i < last {
			key := snapshot.ChainKey{VNI: at.row.VNI, Link: lane.key.String()}
			l.chains = append(l.chains, chainRow(key, lane.functions[i], hops[i][0]))
			s.add(l.see(at, l.facts.path[last], 1, key))
		}
		if i > 0 {
			key := snapshot.ChainKey{VNI: at.row.VNI, Link: lane.key.String(), Reverse: true}
			l.chains = append(l.chains, chainRow(key, lane.functions[i-1], hops[i-1][1]))
			if from := lane.source(i); from < i {
				s.add(l.see(at, l.facts.path[from], 0, key))
			}
		}
		l.sights = append(l.sights, s)
	}
	return true
}

func chainRow(key snapshot.ChainKey, f function, hops []snapshot.Hop) snapshot.Chain {
	return snapshot.Chain{ChainKey: key, Function: f.Name, Transparent: f.Mode == v1alpha1.FunctionTransparent, Hops: hops}
}

// instances finds the healthy instances of a function, with their interfaces
// on the left and on the right; both lists are in the same order.
func (l *linked) instances(i int) (out [2][]snapshot.Hop) {
	f, project := l.facts.lane.functions[i], l.facts.lane.key.Project
	left, right := l.facts.path[i], l.facts.path[i+1]
	find := func(r *result) map[Key]snapshot.Endpoint {
		out := map[Key]snapshot.Endpoint{}
		p := r.facts.projectOf(project)
		if p == nil {
			return out
		}
		who := p.matching(f.selector)
		for _, e := range r.endpoints { // sorted by address: IPv4 first
			k := Key{e.Project, e.Workload}
			if _, known := out[k]; !known && e.Project == project && who[e.Identity] {
				out[k] = e
			}
		}
		return out
	}
	lefts, rights := find(left), find(right)
	field := fmt.Sprintf("spec.via[%d]", i)
	for k := range rights {
		if _, both := lefts[k]; !both {
			l.problems = append(l.problems, l.lacks(k, f.Name, left.facts.key, field))
		}
	}
	for _, k := range sortedKeys(lefts) {
		a := lefts[k]
		b, both := rights[k]
		if !both {
			l.problems = append(l.problems, l.lacks(k, f.Name, right.facts.key, field))
			continue
		}
		if slices.Contains(l.facts.away, a.Node) {
			continue
		}
		if f.Health != nil {
			c := placedCheck{a.Node, checkOf(f.Health, a.Addr)}
			l.checks = append(l.checks, c)
			if !l.facts.health[i].well(a.Node, c.CheckKey) {
				continue
			}
		}
		for side, e := range [2]snapshot.Endpoint{a, b} {
			out[side] = append(out[side], snapshot.Hop{Project: e.Project, Workload: e.Workload, Addr: e.Addr, MAC: e.MAC, Node: e.Node})
		}
	}
	return out
}

func (l *linked) lacks(workload Key, function string, network Key, field string) v1alpha1.Problem {
	return warn(about(codeFunction, l.facts.lane.name(), field, fmt.Sprintf("Workload %s is selected for function %s but has no interface in Network %s", workload, function, network),
		"give it one, or select fewer"))
}
