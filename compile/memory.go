package compile

import (
	"maps"
	"net/netip"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// memory is the Input of the last compile sorted by project, so that the next
// one has to look only at what is different. Everything in it follows from
// that Input alone.
type memory struct {
	workloads  map[Key]*v1alpha1.Workload
	networks   map[Key]*v1alpha1.Network
	policies   map[Key]*v1alpha1.Policy
	identities map[IdentityKey]policy.Identity
	reports    map[string]*report
	links      map[Key]*v1alpha1.Link
	services   map[Key]*v1alpha1.Service
	floats     map[Key]*v1alpha1.FloatingIP
	away       map[string]bool
	resolved   map[string][]netip.Addr
	projects   map[string]string
	domains    map[string]domain
	modes      map[string]string // of projects
	hosts      map[string]host   // without echo
	nodes      map[string]snapshot.Node

	buckets map[string]*bucket
	// wide are the Policies of tiers admin and baseline.
	wide map[Key]*v1alpha1.Policy
	// twins are Networks whose VNI another Network has too.
	twins map[Key]string
	owner map[snapshot.VNI]Key

	// foreign are Workloads with an interface in a Network of another project.
	foreign map[Key]map[Key]*v1alpha1.Workload
	// visits: into whose Networks Workloads of a project have reached so far.
	visits map[string]map[string]bool
	// pools are the FloatingIPs of each Network.
	pools map[Key]map[Key]*v1alpha1.FloatingIP
	// users are the projects whose Policies have named a Service so far; "" is
	// every one.
	users map[Key]map[string]bool
	// external are the Services that have had an external name so far.
	external map[string]map[Key]bool
	health   map[snapshot.VNI]*healths
	traffic  traffic
	lanes    map[Key]*lane
	egress   map[netip.Addr]egress
	// underlay addresses of nodes; taken, those and the egress addresses.
	underlay, taken []netip.Addr
	sources         []pool         // the external Networks, the oldest first
	elder           map[Key]ranges // what of an external Network is an older one's

	// What followed from the last Input.
	results   map[Key]*result
	linked    map[Key]*linked
	floatings map[Key]*floating
	joints    map[Key]*joint
	// touching are the Links and FloatingIPs by Network.
	touching map[Key]*touching

	// Of the running compile: everything may be different; a Network came or
	// went; Links have to be judged anew; Networks whose joint may be different.
	all, renamed, relink bool
	serviced             bool // a Service came or went
	rejoin               map[Key]bool
}

// touching is what one Network has to do with others.
type touching struct {
	links      []*linked
	pool, home []*floating
}

// bucket is what one project has.
type bucket struct {
	networks    map[Key]*v1alpha1.Network
	workloads   map[Key]*v1alpha1.Workload
	policies    map[Key]*v1alpha1.Policy // of tier project
	identities  map[IdentityKey]*who
	attachments map[string][]*snapshot.Attachment // by node
	guests      map[string][]*snapshot.Attachment // of other projects, in its Networks; by node
	services    map[Key]*v1alpha1.Service
	dirty       bool

	project  *project
	results  []*result // sorted by key
	stale    bool      // the problems have to be looked for anew
	problems []v1alpha1.Problem
}

// report is a Report sorted by project and VNI.
type report struct {
	*snapshot.Report
	attachments map[string][]*snapshot.Attachment
	guests      map[string][]*snapshot.Attachment // by the project of the Network
	blocks      map[snapshot.VNI][]snapshot.Block
	health      map[snapshot.VNI]map[snapshot.CheckKey]bool
}

func newMemory() *memory {
	return &memory{
		workloads: map[Key]*v1alpha1.Workload{}, networks: map[Key]*v1alpha1.Network{}, policies: map[Key]*v1alpha1.Policy{},
		identities: map[IdentityKey]policy.Identity{}, reports: map[string]*report{},
		links: map[Key]*v1alpha1.Link{}, services: map[Key]*v1alpha1.Service{}, floats: map[Key]*v1alpha1.FloatingIP{},
		buckets: map[string]*bucket{}, wide: map[Key]*v1alpha1.Policy{}, foreign: map[Key]map[Key]*v1alpha1.Workload{}, visits: map[string]map[string]bool{},
		pools: map[Key]map[Key]*v1alpha1.FloatingIP{}, users: map[Key]map[string]bool{}, external: map[string]map[Key]bool{}, health: map[snapshot.VNI]*healths{},
		lanes: map[Key]*lane{}, results: map[Key]*result{}, linked: map[Key]*linked{}, floatings: map[Key]*floating{}, joints: map[Key]*joint{},
		touching: map[Key]*touching{}, rejoin: map[Key]bool{}, all: true, relink: true,
		traffic: newTraffic(),
	}
}

func (m *memory) bucket(project string) *bucket {
	b := m.buckets[project]
	if b == nil {
		b = &bucket{networks: map[Key]*v1alpha1.Network{}, workloads: map[Key]*v1alpha1.Workload{}, policies: map[Key]*v1alpha1.Policy{},
			identities: map[IdentityKey]*who{}, attachments: map[string][]*snapshot.Attachment{}, guests: map[string][]*snapshot.Attachment{}, services: map[Key]*v1alpha1.Service{}}
		m.buckets[project] = b
	}
	return b
}

// touch returns the bucket and marks it.
func (m *memory) touch(project string) *bucket {
	b := m.bucket(project)
	b.dirty = true
	return b
}

// diff calls changed for every key whose value is not the same, and makes last
// equal to now. old and new are the zero value where there is none.
func diff[K comparable, V comparable](last, now map[K]V, changed func(k K, old, new V)) {
	for k, v := range now {
		if old, had := last[k]; !had || old != v {
			last[k] = v
			changed(k, old, v)
		}
	}
	if len(last) == len(now) {
		return
	}
	var zero V
	for k, v := range last {
		if _, has := now[k]; !has {
			delete(last, k)
			changed(k, v, zero)
		}
	}
}

// put sets or, for nil, removes an entry.
func put[K comparable, V any](m map[K]*V, k K, v *V) {
	if v == nil {
		delete(m, k)
	} else {
		m[k] = v
	}
}

// learn brings the memory to the Input and marks what is different.
func (m *memory) learn(in *Input) {
	m.places(in)
	diff(m.workloads, in.Workloads, func(k Key, old, w *v1alpha1.Workload) {
		put(m.touch(k.Project).workloads, k, w)
		m.learnForeign(k, old, w)
	})
	m.learnNetworks(in)
	m.learnReach(in)
	diff(m.policies, in.Policies, func(k Key, old, p *v1alpha1.Policy) {
		if old != nil && tierOf(old) != policy.Project || p != nil && tierOf(p) != policy.Project {
			m.all = true
		}
		delete(m.wide, k)
		m.learnUsers(k, p)
		b := m.touch(k.Project)
		delete(b.policies, k)
		switch {
		case p == nil:
		case tierOf(p) == policy.Project:
			b.policies[k] = p
		default:
			m.wide[k] = p
		}
	})
	diff(m.identities, in.Identities, func(k IdentityKey, _, n policy.Identity) {
		row, err := ParseKey(k)
		if err != nil {
			return // nobody's
		}
		b := m.touch(row.Project)
		if n == 0 {
			delete(b.identities, k)
			return
		}
		row.Number = n
		b.identities[k] = newWho(k, row)
	})
	m.learnReports(in)
	m.traffic.learn(in)
	m.learnEdges(in)
}

// places learns Domains, projects and nodes. They change seldom, and then
// everything is looked at again.
func (m *memory) places(in *Input) {
	domains := make(map[string]domain, len(in.Domains))
	for name, d := range in.Domains {
		domains[name] = domain{TrustDomain(d), d.Spec.MTLS, d.Spec.Authorizers}
	}
	if !maps.EqualFunc(domains, m.domains, domain.equal) || !maps.Equal(in.Projects, m.projects) || !maps.Equal(in.Modes, m.modes) {
		m.domains, m.projects, m.modes, m.all = domains, maps.Clone(in.Projects), maps.Clone(in.Modes), true
	}
	hosts := make(map[string]host, len(in.Nodes))
	for name, n := range in.Nodes {
		hosts[name] = host{name: name, zone: n.Spec.Zone, exists: true, external: n.Spec.External, numbered: in.NodeNumbers[name] != 0}
	}
	before := m.underlay
	m.nodes, m.underlay = nodeRows(in), nil
	for _, n := range m.nodes {
		if n.Address.IsValid() {
			m.underlay = append(m.underlay, n.Address)
		}
	}
	slices.SortFunc(m.underlay, netip.Addr.Compare)
	m.relink = m.relink || !slices.Equal(before, m.underlay)
	if !maps.EqualFunc(hosts, m.hosts, host.equal) {
		m.hosts, m.all = hosts, true
	}
}

func (m *memory) learnNetworks(in *Input) {
	seen := m.relink
	diff(m.networks, in.Networks, func(k Key, old, n *v1alpha1.Network) {
		put(m.touch(k.Project).networks, k, n)
		seen = true
		m.renamed = m.renamed || old == nil || n == nil
	})
	m.relink = m.relink || seen || m.all
	if !seen {
		return
	}
	m.owner = make(map[snapshot.VNI]Key, len(in.Networks))
	for k, n := range in.Networks {
		v := snapshot.VNI(n.Status.VNI)
		if o, taken := m.owner[v]; v != 0 && (!taken || compareKeys(k, o) < 0) {
			m.owner[v] = k
		}
	}
	twins := map[Key]string{}
	for k, n := range in.Networks {
		if o := m.owner[snapshot.VNI(n.Status.VNI)]; n.Status.VNI != 0 && o != k {
			twins[k] = o.String()
		}
	}
	for _, of := range []map[Key]string{m.twins, twins} {
		for k := range of {
			if m.twins[k] != twins[k] {
				m.touch(k.Project)
			}
		}
	}
	m.twins = twins
}

func (m *memory) learnReports(in *Input) {
	for node, r := range in.Reports {
		if old := m.reports[node]; old == nil || old.Report != r {
			m.learnReport(node, old, sortReport(r))
		}
	}
	if len(m.reports) != len(in.Reports) {
		for node, old := range m.reports {
			if in.Reports[node] == nil {
				m.learnReport(node, old, nil)
			}
		}
	}
}

func sortReport(r *snapshot.Report) *report {
	out := &report{Report: r, attachments: map[string][]*snapshot.Attachment{}, guests: map[string][]*snapshot.Attachment{},
		blocks: map[snapshot.VNI][]snapshot.Block{}, health: map[snapshot.VNI]map[snapshot.CheckKey]bool{}}
	for i := range r.Attachments {
		a := &r.Attachments[i]
		out.attachments[a.Project] = append(out.attachments[a.Project], a)
		if p := networkOf(a.Project, a.Network).Project; p != a.Project {
			out.guests[p] = append(out.guests[p], a)
		}
	}
	for _, h := range r.Health {
		if out.health[h.Addr.VNI] == nil {
			out.health[h.Addr.VNI] = map[snapshot.CheckKey]bool{}
		}
		out.health[h.Addr.VNI][h.CheckKey] = h.Healthy
	}
	for _, b := range r.Blocks {
		out.blocks[b.VNI] = append(out.blocks[b.VNI], b)
	}
	return out
}

// learnReport replaces what a node said; nil is nothing.
func (m *memory) learnReport(node string, old, now *report) {
	var none report
	if old == nil {
		old = &none
	}
	if now == nil {
		delete(m.reports, node)
		now = &none
	} else {
		m.reports[node] = now
	}
	for _, of := range []*report{old, now} {
		for p := range of.attachments {
			b := m.bucket(p)
			b.learn(b.attachments, node, old.attachments[p], now.attachments[p])
		}
		for p := range of.guests {
			b := m.bucket(p)
			b.learn(b.guests, node, old.guests[p], now.guests[p])
			for _, x := range now.guests[p] {
				m.visit(x.Project, p)
			}
		}
		for v := range of.health {
			if !maps.Equal(old.health[v], now.health[v]) {
				m.learnHealth(v)
			}
		}
		for v := range of.blocks {
			if k, known := m.owner[v]; known && !slices.EqualFunc(old.blocks[v], now.blocks[v], sameBlock) {
				m.touch(k.Project)
			}
		}
	}
}

// learn replaces, in one of the bucket's tables, what a node said; nil is
// nothing.
func (b *bucket) learn(table map[string][]*snapshot.Attachment, node string, old, now []*snapshot.Attachment) {
	if !slices.EqualFunc(old, now, sameAttachment) {
		b.dirty = true
	}
	if table[node] = now; now == nil {
		delete(table, node)
	}
}
