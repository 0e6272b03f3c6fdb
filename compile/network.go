package compile

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// result is everything that follows from the facts of one Network. It is
// never changed after compileNetwork returned it.
type result struct {
	facts *facts
	// live: the Network has rows. Otherwise it only has errors and needs.
	live          bool
	row           snapshot.Network
	endpoints     []snapshot.Endpoint
	endpointNodes []string // sorted
	hosts         map[string]*hosting
	identities    []snapshot.Identity // that are not allocated yet
	blocks        []BlockNeed
	problems      []v1alpha1.Problem
	used          []policy.Identity       // by Workloads of the Network, sorted
	taps          map[policy.Identity]Key // behind a tap: of each identity the first Workload by name
	space         space
	vipsOf        map[vipOwner][]netip.Addr // in force, sorted
	addresses     []AddressNeed
	// byWorkload finds endpoints; made when first asked for.
	byWorkload map[Key][]int
}

// of lists the indices of the endpoints of a Workload.
func (r *result) of(workload Key) []int {
	if r.byWorkload == nil {
		r.byWorkload = make(map[Key][]int, len(r.endpoints))
		for i, e := range r.endpoints {
			k := Key{e.Project, e.Workload}
			r.byWorkload[k] = append(r.byWorkload[k], i)
		}
	}
	return r.byWorkload[workload]
}

// hosting is what one node gets of one Network.
type hosting struct {
	// member: a Workload of the Network is or shall be on the node.
	member bool
	grants []snapshot.Grant
	blocks []snapshot.Block
	who    []policy.Identity // of the Workloads there
}

type setRow struct {
	key snapshot.PolicyKey
	set policy.Set
}

// draft is a result in the making.
type draft struct {
	*result
	f      *facts
	vni    snapshot.VNI
	claims map[netip.Addr]claim // who has or gets which address
	// workloads are those of f that may be here.
	workloads []*v1alpha1.Workload
	// given are the addresses of Services and FloatingIPs; kept, those and the
	// ones that they wait for.
	given  map[netip.Addr]vipOwner
	taken  map[netip.Addr]string // owners by status.taken
	needed map[netip.Addr]bool   // by d.addresses
	kept   []netip.Addr
	wishes []wish
	judged []judged
	// named are the addresses that declared Workloads name.
	named []netip.Addr
	// owners: the first declared Workload, by name, that names an address.
	owners map[netip.Addr]Key
	who    map[policy.Identity]bool
}

// claim says who holds an address.
type claim struct{ workload, node string }

// judged is an attachment with its verdict.
type judged struct {
	located
	// refused says why it may not be; waits, that it cannot be granted yet.
	refused string
	waits   bool
	iface   *v1alpha1.Interface // what is declared of it
	static  []netip.Addr
	number  policy.Identity
}

// compileNetwork computes the result of one Network.
func compileNetwork(f *facts) *result {
	d := &draft{f: f, result: &result{facts: f, hosts: map[string]*hosting{}, vipsOf: map[vipOwner][]netip.Addr{}},
		claims: map[netip.Addr]claim{}, owners: map[netip.Addr]Key{}, who: map[policy.Identity]bool{}, given: map[netip.Addr]vipOwner{}, taken: map[netip.Addr]string{}, needed: map[netip.Addr]bool{}}
	if f.network != nil {
		d.space = spaceOf(&f.network.Spec)
		d.vni = snapshot.VNI(f.network.Status.VNI)
		d.wishes = d.findWishes()
	}
	d.live = f.network != nil && d.vni != 0 && f.project.missing == "" && f.twin == "" && !f.network.Spec.External
	d.networkProblems()
	d.declared()
	d.givenVIPs()
	d.judge()
	d.external()
	d.members()
	if f.network != nil {
		d.wishedVIPs()
		d.blockRows()
		if !f.network.Spec.External {
			d.capacity()
		}
	}
	if d.live {
		d.rows()
	}
	d.used = slices.Sorted(maps.Keys(d.who))
	d.problems = sortProblems(d.problems)
	return d.result
}

func (d *draft) problem(p v1alpha1.Problem) { d.problems = append(d.problems, p) }

func (d *draft) networkProblems() {
	for _, s := range d.f.services {
		object := serviceName(s)
		i := slices.IndexFunc(s.Spec.Networks, func(n v1alpha1.ServiceNetwork) bool { return n.Network == d.f.key.Name })
		field := fmt.Sprintf("spec.networks[%d].network", i)
		switch {
		case d.f.network == nil:
			d.problem(about(codeNoNetwork, object, field, "Network "+d.f.key.String()+" does not exist", "create it or correct the name"))
		case d.f.network.Spec.External:
			d.problem(about(codeNotInPool, object, field, "Network "+d.f.key.String()+" is external: its addresses are for FloatingIPs", "put a FloatingIP there"))
		}
	}
	if d.f.network == nil {
		return
	}
	d.nameProblems()
	name := networkName(d.f.key)
	for _, p := range v1alpha1.ValidateNetwork(d.f.network) {
		if !p.Warning {
			d.problem(p)
		}
	}
	if d.f.project.domain == "" {
		d.problem(noDomain(name, d.f.key.Project, "nothing in the Network is connected"))
	}
	if d.f.twin != "" {
		d.problem(about(codeTwin, name, "status.vni", fmt.Sprintf("Network %s has the VNI %d too and keeps it", d.f.twin, d.vni),
			"delete this Network and create it again"))
	}
}

// hosting returns what the node gets, to be filled.
func (d *draft) hosting(node string) *hosting {
	h := d.hosts[node]
	if h == nil {
		h = &hosting{}
		d.hosts[node] = h
	}
	return h
}

// number finds the identity's number, or notes that it is needed.
func (d *draft) number(id snapshot.Identity) policy.Identity {
	p := d.f.projectOf(id.Project)
	if d.f.project.missing != "" || p == nil || p.missing != "" {
		return 0
	}
	n, ok := p.numbers[KeyOf(id)]
	if !ok {
		id.SPIFFE = spiffe(p.trust, id.Project, id.Account)
		d.identities = append(d.identities, id)
		return 0
	}
	d.who[n] = true
	return n
}

// external makes the endpoints of declared Workloads behind Nodes without an
// agent. What is live elsewhere keeps its address.
func (d *draft) external() {
	for _, w := range d.workloads {
		if h := d.f.host(w.Spec.Node); !h.external || d.f.network == nil {
			continue
		}
		i := interfaceOf(w, d.f.key)
		iface := &w.Spec.Interfaces[i]
		key := Key{w.Namespace, w.Name}
		field := fmt.Sprintf("spec.interfaces[%d]", i)
		mac, err := snapshot.ParseMAC(iface.MAC)
		if err != nil || len(iface.Addresses) == 0 {
			d.problem(about(codeExternal, workloadName(key), field, "a Workload on the external Node "+w.Spec.Node+" needs addresses and a mac, because nobody there can report them",
				"write both"))
			continue
		}
		n := d.number(declaredIdentity(w, d.f.domainOf(w.Namespace)))
		d.proxyless(key, d.wantedMode(key.Project, w), "its node is external")
		for j, text := range iface.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			field := fmt.Sprintf("%s.addresses[%d]", field, j)
			if code, _, _ := d.misplaced(a); code != "" || d.owner(a) != key {
				continue // declared has told it
			}
			if c, taken := d.claims[a]; taken {
				d.problem(about(codeInUse, workloadName(key), field, fmt.Sprintf("%s is in use by %s on node %s", a, c.workload, c.node), "detach that Workload or choose another address"))
				continue
			}
			if holder, waits := d.heldBy(a, w.Spec.Node); waits {
				d.problem(held(key, field, a, holder))
				continue
			}
			d.claims[a] = claim{key.String(), w.Spec.Node}
			if d.live && n != 0 {
				d.endpoints = append(d.endpoints, snapshot.Endpoint{Addr: snapshot.Addr{VNI: d.vni, IP: a}, Project: key.Project, Workload: key.Name, MAC: mac, Identity: n, Node: w.Spec.Node})
			}
		}
	}
}

// members finds which nodes host the Network, and who is there.
func (d *draft) members() {
	for i := range d.judged {
		a := &d.judged[i]
		if a.refused != "" {
			continue
		}
		h := d.hosting(a.node)
		h.member = true
		h.add(a.number)
	}
	for _, w := range d.workloads {
		n := d.number(declaredIdentity(w, d.f.domainOf(w.Namespace)))
		host := d.f.host(w.Spec.Node)
		if w.Spec.Node == "" || !host.exists || host.external {
			continue
		}
		h := d.hosting(w.Spec.Node)
		h.member = true
		h.add(n)
	}
	for _, h := range d.hosts {
		slices.Sort(h.who)
		h.who = slices.Compact(h.who)
	}
	slices.SortFunc(d.identities, func(a, b snapshot.Identity) int { return cmp.Compare(KeyOf(a), KeyOf(b)) })
	d.identities = slices.CompactFunc(d.identities, func(a, b snapshot.Identity) bool { return KeyOf(a) == KeyOf(b) })
}

func (h *hosting) add(n policy.Identity) {
	if n != 0 {
		h.who = append(h.who, n)
	}
}

// rows makes the Network's row, the endpoints and the grants.
func (d *draft) rows() {
	spec := &d.f.network.Spec
	d.row = snapshot.Network{VNI: d.vni, Project: d.f.key.Project, Name: d.f.key.Name, Domain: d.f.project.domain,
		Prefixes: d.space.prefixes, MTU: int(spec.MTU), Deny: spec.Default == v1alpha1.DefaultDeny, Limit: limitOf(spec.Limit)}
	for i := range d.judged {
		a := &d.judged[i]
		if a.refused != "" || a.number == 0 {
			continue
		}
		for _, ip := range a.Addresses {
			d.endpoints = append(d.endpoints, snapshot.Endpoint{Addr: snapshot.Addr{VNI: d.vni, IP: ip}, Project: a.Project,
				Workload: a.Workload, MAC: a.MAC, Identity: a.number, Node: a.node, Mode: d.mode(a)})
		}
	}
	slices.SortFunc(d.endpoints, func(a, b snapshot.Endpoint) int { return a.Addr.Compare(b.Addr) })
	for _, e := range d.endpoints {
		d.endpointNodes = append(d.endpointNodes, e.Node)
	}
	slices.Sort(d.endpointNodes)
	d.endpointNodes = slices.Compact(d.endpointNodes)
}

// networkOf is the Network that "network" or "project/network" means to a
// project.
func networkOf(project, ref string) Key {
	if p, n, other := strings.Cut(ref, "/"); other {
		return Key{p, n}
	}
	return Key{project, ref}
}

// interfaceOf is the index of the interface in the Network, or -1.
func interfaceOf(w *v1alpha1.Workload, network Key) int {
	return slices.IndexFunc(w.Spec.Interfaces, func(i v1alpha1.Interface) bool { return networkOf(w.Namespace, i.Network) == network })
}
