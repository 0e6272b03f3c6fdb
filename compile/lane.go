package compile

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"moire.dev/moire/api/v1alpha1"
)

// lane is a Link with the way that it takes, and whether it may.
type lane struct {
	key  Key
	link *v1alpha1.Link
	// path: the Networks from the first end to the second; two without via.
	path      []Key
	functions []function
	problems  []v1alpha1.Problem
	// open: both sides exist and consent, and nothing overlaps.
	open bool
}

// function is a parsed Function.
type function struct {
	*v1alpha1.Function
	selector labels.Selector
}

func (l *lane) name() string { return "Link " + l.key.String() }

func (l *lane) equal(o *lane) bool {
	return o != nil && l.link == o.link && l.open == o.open && slices.Equal(l.path, o.path) && slices.Equal(l.problems, o.problems)
}

func (l *lane) fail(code, field, reason, fix string) {
	l.problems = append(l.problems, about(code, l.name(), field, reason, fix))
}

func (l *lane) end(i int) *v1alpha1.LinkEnd { return &l.link.Spec.Ends[i] }

// occupied is what is taken of the addresses that one Network sees.
type occupied struct {
	ranges ranges
	owner  string
}

// judgeLanes judges all Links. Of two that cannot be together, the older one stays:
// nobody cuts what is there by writing another.
func (m *memory) judgeLanes() map[Key]*lane {
	out := make(map[Key]*lane, len(m.links))
	seen := map[Key][]occupied{}
	order := sortedKeys(m.links)
	slices.SortStableFunc(order, func(a, b Key) int {
		return m.links[a].CreationTimestamp.Compare(m.links[b].CreationTimestamp.Time)
	})
	for _, k := range order {
		l := &lane{key: k, link: m.links[k]}
		m.judgeLane(l)
		if len(l.problems) == 0 {
			m.judgeSpace(l, seen)
		}
		l.open = len(l.problems) == 0
		if old := m.lanes[k]; l.equal(old) {
			l = old
		}
		out[k] = l
	}
	return out
}

// judgeLane finds the path and asks for consent.
func (m *memory) judgeLane(l *lane) {
	spec := &l.link.Spec
	if len(spec.Ends) != 2 {
		l.fail(codeNoNetwork, "spec.ends", "a Link has two ends", "write two")
		return
	}
	domain := m.projects[l.key.Project]
	if domain == "" {
		l.problems = append(l.problems, noDomain(l.name(), l.key.Project, "the Link connects nothing"))
	}
	var ends [2]Key
	for i := range spec.Ends {
		e := l.end(i)
		ends[i] = Key{e.Project, e.Network}
		if e.Project == "" {
			ends[i].Project = l.key.Project
		}
		m.judgeRef(l, ends[i], fmt.Sprintf("spec.ends[%d].network", i))
	}
	if ends[0] == ends[1] {
		l.fail(codeChain, "spec.ends", "both ends are Network "+ends[0].String(), "link it with another Network")
	}
	l.path = []Key{ends[0]}
	for i := range spec.Via {
		m.judgeFunction(l, i, ends)
	}
	l.path = append(l.path, ends[1])
	if n := slices.Clone(l.path); len(spec.Via) > 0 {
		slices.SortFunc(n, compareKeys)
		if len(slices.Compact(n)) != len(l.path) {
			l.fail(codeChain, "spec.via", "the chain passes one Network twice", "give each function two Networks of its own, left and right")
		}
		for i := range spec.Ends {
			if len(l.end(i).Translate) > 0 {
				l.fail(codeChain, fmt.Sprintf("spec.ends[%d].translate", i), "translate and via exclude each other", "let a function of mode nat translate, or take the chain out")
			}
		}
	}
}

// judgeRef looks whether the Link may have to do with the Network.
func (m *memory) judgeRef(l *lane, k Key, field string) {
	n, domain := m.networks[k], m.projects[l.key.Project]
	switch {
	case n == nil:
		l.fail(codeNoNetwork, field, "Network "+k.String()+" does not exist", "create it or correct the name")
	case n.Spec.External:
		l.fail(codeChain, field, "Network "+k.String()+" is external: a pool for FloatingIPs", "link another Network")
	case m.projects[k.Project] == "":
		l.problems = append(l.problems, noDomain(l.name(), k.Project, "the Link connects nothing"))
	case domain != "" && !consents(n, m.projects[k.Project], l.key.Project, domain, v1alpha1.ConsentLink):
		l.fail(codeNoConsent, field, noConsent(k, m.projects[k.Project], l.key.Project, domain, v1alpha1.ConsentLink), "")
	}
}

// judgeFunction adds the Network behind a function to the path.
func (m *memory) judgeFunction(l *lane, i int, ends [2]Key) {
	f := &l.link.Spec.Via[i]
	field := fmt.Sprintf("spec.via[%d]", i)
	left, right, last := l.path[len(l.path)-1], ends[1], i == len(l.link.Spec.Via)-1
	if f.Left != "" && networkOf(l.key.Project, f.Left) != left {
		l.fail(codeChain, field+".left", fmt.Sprintf("function %s comes after Network %s", f.Name, left), "leave left out, or name that Network")
	}
	if f.Right != "" {
		right = networkOf(l.key.Project, f.Right)
	}
	switch {
	case last && right != ends[1]:
		l.fail(codeChain, field+".right", fmt.Sprintf("function %s is the last one, before Network %s", f.Name, ends[1]), "leave right out, or name that Network")
	case !last && f.Right == "":
		l.fail(codeChain, field+".right", fmt.Sprintf("function %s is not the last one, so nobody knows the Network behind it", f.Name), "name it")
	case !last:
		m.judgeRef(l, right, field+".right")
		l.path = append(l.path, right)
	}
	parsed := function{Function: f}
	s, err := metav1.LabelSelectorAsSelector(&f.Workloads)
	if err != nil {
		l.fail(codeSelector, field+".workloads", "the label selector is not valid: "+err.Error(), "correct it; nothing crosses until then")
	}
	parsed.selector = s
	l.functions = append(l.functions, parsed)
}

// judgeSpace looks whether what each Network of the path would see is free
// there, and takes it.
func (m *memory) judgeSpace(l *lane, seen map[Key][]occupied) {
	type sight struct {
		at   Key
		what occupied
	}
	var all []sight
	see := func(at, of Key, translate []v1alpha1.Translation) {
		all = append(all, sight{at, occupied{sightOf(m.networks[of], translate), "Network " + of.String()}})
	}
	last := len(l.path) - 1
	for i := range l.path {
		if i < last {
			see(l.path[i], l.path[last], l.end(1).Translate)
		}
		if from := l.source(i); from < i {
			see(l.path[i], l.path[from], l.end(0).Translate)
		}
	}
	if l.source(last) > 0 && l.link.Spec.OnFailure == v1alpha1.OnFailureBypass {
		see(l.path[last], l.path[0], nil) // without the chain, nobody translates
	}
	for i := range l.link.Spec.Ends {
		if why := mixed(m.networks[l.path[i*last]], l.end(i).Translate); why != "" {
			l.fail(codeLinkOverlap, fmt.Sprintf("spec.ends[%d].translate", i), why, "choose another prefix to be seen as")
			return
		}
		_, as := splitSight(m.networks[l.path[i*last]], l.end(i).Translate)
		if both := as.and(nobodys()); len(both) > 0 {
			l.fail(codeLinkOverlap, fmt.Sprintf("spec.ends[%d].translate", i), fmt.Sprintf("%s belongs to the nodes themselves, or to nobody", both[0]), "choose another prefix to be seen as")
			return
		}
	}
	for _, s := range all {
		own := occupied{sightOf(m.networks[s.at], nil), "Network " + s.at.String()}
		for _, o := range append([]occupied{own}, seen[s.at]...) {
			if both := o.ranges.and(s.what.ranges); len(both) > 0 {
				l.fail(codeLinkOverlap, "spec.ends", fmt.Sprintf("in Network %s, %s of %s would be also %s of %s", s.at, both[0], o.owner, both[0], s.what.owner),
					"let one of them be seen under other addresses with translate")
				return
			}
		}
	}
	for _, s := range all {
		s.what.owner += " by " + l.name()
		seen[s.at] = append(seen[s.at], s.what)
	}
}

// source is the index in the path of the Network whose addresses stand for the
// first end at index i: behind a function of mode nat, that is its own.
func (l *lane) source(i int) int {
	from := 0
	for j := range min(i, len(l.functions)) {
		if l.functions[j].Mode == v1alpha1.FunctionNAT {
			from = j + 1
		}
	}
	return from
}

// sightOf are the addresses of a Network as the other end sees them.
func sightOf(n *v1alpha1.Network, translate []v1alpha1.Translation) ranges {
	rest, as := splitSight(n, translate)
	return union(slices.Concat(rest, as))
}

// splitSight are the addresses that stay and those that are translated, as
// they are then.
func splitSight(n *v1alpha1.Network, translate []v1alpha1.Translation) (rest, as ranges) {
	var all, new []v1alpha1.Range
	for _, text := range n.Spec.Prefixes {
		if p, err := v1alpha1.ParsePrefix(text); err == nil {
			all = append(all, v1alpha1.RangeOf(p))
		}
	}
	rest = union(all)
	for _, t := range translations(translate) {
		from := ranges{v1alpha1.RangeOf(t.from)}
		for _, r := range rest.and(from) {
			new = append(new, v1alpha1.Range{First: t.apply(r.First), Last: t.apply(r.Last)})
		}
		rest = rest.minus(from)
	}
	return rest, union(new)
}

// mixed says why two addresses of the Network would be seen as one.
func mixed(n *v1alpha1.Network, translate []v1alpha1.Translation) string {
	rest, as := splitSight(n, translate)
	if both := rest.and(as); len(both) > 0 {
		return fmt.Sprintf("%s of Network %s/%s would be seen twice", both[0], n.Namespace, n.Name)
	}
	if size := func(r ranges) int64 { return r.size(false) + r.size(true)>>1 }; size(sightOf(n, nil)) > size(rest)+size(as) {
		return fmt.Sprintf("two addresses of Network %s/%s would be seen as one", n.Namespace, n.Name)
	}
	return ""
}

// translation is a parsed Translation.
type translation struct{ from, to netip.Prefix }

func translations(in []v1alpha1.Translation) []translation {
	var out []translation
	for _, t := range in {
		from, err1 := v1alpha1.ParsePrefix(t.Prefix)
		to, err2 := v1alpha1.ParsePrefix(t.As)
		if err1 == nil && err2 == nil && from.Bits() == to.Bits() && from.Addr().Is4() == to.Addr().Is4() {
			out = append(out, translation{from, to})
		}
	}
	return out
}

// apply gives an address of from the same host part in to.
func (t translation) apply(a netip.Addr) netip.Addr {
	host, net := a.AsSlice(), t.to.Addr().AsSlice()
	for i := range host {
		bits := min(max(t.to.Bits()-8*i, 0), 8)
		mask := byte(0xff << (8 - bits))
		host[i] = net[i]&mask | host[i]&^mask
	}
	out, _ := netip.AddrFromSlice(host)
	return out
}

// seenAs is the address as the other end of the Link sees it. The first
// translation that contains it counts.
func seenAs(ts []translation, a netip.Addr) netip.Addr {
	for _, t := range ts {
		if t.from.Contains(a) {
			return t.apply(a)
		}
	}
	return a
}
