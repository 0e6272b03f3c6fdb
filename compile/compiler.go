package compile

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Compiler remembers what it computed for facts that have not changed since,
// so that one change costs little. It changes no result: a new Compiler gives
// the same. One goroutine at a time may use it.
type Compiler struct {
	networks     map[Key]*result
	lastProjects map[string]*project
	identities   map[IdentityKey]*who
	parsed       map[*v1alpha1.Policy]*parsedPolicy
	nodes        map[string]snapshot.Node
	snapshots    map[string]*built
}

// built is a snapshot with what it was made from.
type built struct {
	from []*result
	*snapshot.Snapshot
}

// NewCompiler returns a Compiler that remembers nothing yet.
func NewCompiler() *Compiler { return &Compiler{} }

// Compile turns the facts into one snapshot for each Node that has an agent,
// and says what is wrong with the intent.
func Compile(in *Input) (map[string]*snapshot.Snapshot, []v1alpha1.Problem) {
	return NewCompiler().Compile(in)
}

// NeedsOf says what has to be allocated before Compile can connect everything.
func NeedsOf(in *Input) Needs { return NewCompiler().NeedsOf(in) }

// Compile is the function Compile with a memory.
func (c *Compiler) Compile(in *Input) (map[string]*snapshot.Snapshot, []v1alpha1.Problem) {
	results := c.results(in)
	out := c.assemble(in, results)
	problems := objectProblems(in)
	for _, r := range results {
		problems = append(problems, r.problems...)
	}
	problems = append(problems, c.policyProblems(in, results)...)
	return out, sortProblems(problems)
}

// NeedsOf is the function NeedsOf with a memory.
func (c *Compiler) NeedsOf(in *Input) Needs {
	var out Needs
	for _, r := range c.results(in) {
		if n := r.facts.network; n != nil && n.Status.VNI == 0 {
			out.VNIs = append(out.VNIs, r.facts.key)
		}
		out.Identities = append(out.Identities, r.identities...)
		out.Blocks = append(out.Blocks, r.blocks...)
	}
	byKey := map[IdentityKey]snapshot.Identity{}
	for _, id := range out.Identities {
		byKey[KeyOf(id)] = id
	}
	out.Identities = out.Identities[:0]
	for _, k := range slices.Sorted(maps.Keys(byKey)) {
		out.Identities = append(out.Identities, byKey[k])
	}
	for _, name := range sortedNames(in.Nodes) {
		if !in.Nodes[name].Spec.External && in.NodeNumbers[name] == 0 {
			out.NodeNumbers = append(out.NodeNumbers, name)
		}
	}
	return out
}

// results gives the result of every Network, sorted by key.
func (c *Compiler) results(in *Input) []*result {
	if len(c.identities) > 2*len(in.Identities)+1024 {
		c.identities = nil
	}
	index := c.index(in)
	networks := make(map[Key]*result, len(index))
	parsed := make(map[*v1alpha1.Policy]*parsedPolicy, len(in.Policies))
	for _, p := range in.Policies {
		if old := c.parsed[p]; old != nil {
			parsed[p] = old
		}
	}
	c.parsed = parsed
	out := make([]*result, 0, len(index))
	for k, f := range index {
		r := c.networks[k]
		if r == nil || !r.facts.equal(f) {
			r = c.compileNetwork(f)
		}
		networks[k] = r
		out = append(out, r)
	}
	c.networks = networks
	slices.SortFunc(out, func(a, b *result) int { return compareKeys(a.facts.key, b.facts.key) })
	return out
}

// identity is the parsed form of an allocated identity, nil if it is none.
func (c *Compiler) identity(k IdentityKey, n policy.Identity) *who {
	if w := c.identities[k]; w != nil && w.row.Number == n {
		return w
	}
	row, err := ParseKey(k)
	if err != nil || n == 0 {
		return nil
	}
	row.Number = n
	w := &who{key: k, row: row, labels: make(labels.Set, len(row.Labels))}
	for _, l := range row.Labels {
		w.labels[l.Key] = l.Value
	}
	if c.identities == nil {
		c.identities = map[IdentityKey]*who{}
	}
	c.identities[k] = w
	return w
}

func (c *Compiler) parse(p *v1alpha1.Policy) *parsedPolicy {
	out := c.parsed[p]
	if out == nil {
		out = parsePolicy(p)
		c.parsed[p] = out
	}
	return out
}

// assemble puts the results together, node by node.
func (c *Compiler) assemble(in *Input, results []*result) map[string]*snapshot.Snapshot {
	nodes := nodeRows(in)
	if maps.Equal(nodes, c.nodes) {
		nodes = c.nodes
	} else {
		c.nodes, c.snapshots = nodes, nil
	}
	from := map[string][]*result{}
	for _, r := range results {
		for node := range r.hosts {
			from[node] = append(from[node], r)
		}
	}
	out := make(map[string]*snapshot.Snapshot, len(nodes))
	all := make(map[string]*built, len(nodes))
	for name, n := range nodes {
		if n.External {
			continue
		}
		b := c.snapshots[name]
		if b == nil || !slices.Equal(b.from, from[name]) {
			b = &built{from: from[name], Snapshot: assembleNode(name, nodes, from[name])}
		}
		all[name], out[name] = b, b.Snapshot
	}
	c.snapshots = all
	return out
}

// assembleNode makes one snapshot from the results of its Networks.
func assembleNode(node string, nodes map[string]snapshot.Node, from []*result) *snapshot.Snapshot {
	s := &snapshot.Snapshot{
		Node:       node,
		Nodes:      map[string]snapshot.Node{node: nodes[node]},
		Networks:   map[snapshot.VNI]snapshot.Network{},
		Identities: map[policy.Identity]snapshot.Identity{},
		Endpoints:  make(map[snapshot.Addr]snapshot.Endpoint, endpoints(node, from)),
		Blocks:     map[snapshot.BlockKey]snapshot.Block{},
		Grants:     map[snapshot.AttachmentKey]snapshot.Grant{},
		Policies:   map[snapshot.PolicyKey]policy.Set{},
	}
	for _, r := range from {
		h := r.hosts[node]
		for _, g := range h.grants {
			if _, twice := s.Grants[g.AttachmentKey]; !twice {
				s.Grants[g.AttachmentKey] = g
			}
		}
		if !r.live {
			continue
		}
		for _, b := range h.blocks {
			s.Blocks[b.BlockKey] = b
		}
		if !h.member {
			continue
		}
		s.Networks[r.row.VNI] = r.row
		for _, w := range r.facts.project.who {
			if _, twice := s.Identities[w.row.Number]; !twice {
				s.Identities[w.row.Number] = r.facts.project.identityRow(w)
			}
		}
		for _, e := range r.endpoints {
			s.Endpoints[e.Addr] = e
		}
		for _, name := range r.endpointNodes {
			s.Nodes[name] = nodes[name]
		}
		for _, row := range h.sets {
			s.Policies[row.key] = row.set
		}
	}
	return s
}

func endpoints(node string, from []*result) int {
	n := 0
	for _, r := range from {
		if r.hosts[node].member {
			n += len(r.endpoints)
		}
	}
	return n
}
