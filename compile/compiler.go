package compile

import (
	"maps"
	"slices"
	"strings"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// Compiler remembers what it computed for facts that have not changed since,
// so that one change costs little. It changes no result: a new Compiler gives
// the same. One goroutine at a time may use it.
type Compiler struct {
	memory    *memory
	parsed    map[*v1alpha1.Policy]*parsedPolicy
	dangling  map[*v1alpha1.Policy][]v1alpha1.Problem
	nodes     map[string]snapshot.Node
	snapshots map[string]*built
	trusts    *trusts
}

// NewCompiler returns a Compiler that remembers nothing yet.
func NewCompiler() *Compiler {
	return &Compiler{memory: newMemory(), parsed: map[*v1alpha1.Policy]*parsedPolicy{}}
}

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
	joints := c.joints(results)
	c.learnTrusts(in)
	out := c.assemble(in, joints)
	problems := objectProblems(in)
	for _, r := range results {
		problems = append(problems, r.problems...)
	}
	for _, j := range joints {
		problems = append(problems, j.problems...)
	}
	for _, l := range c.memory.linked {
		problems = append(problems, l.problems...)
	}
	for _, f := range c.memory.floatings {
		problems = append(problems, f.problems...)
	}
	problems = append(problems, firewallProblems(in)...)
	problems = append(problems, c.trusts.problems...)
	c.memory.lookAtTraffic()
	problems = append(problems, c.memory.traffic.problems...)
	problems = append(problems, c.policyProblems(in, joints)...)
	c.memory.gatewayProblems(problems)
	return out, sortProblems(problems)
}

// NeedsOf is the function NeedsOf with a memory.
func (c *Compiler) NeedsOf(in *Input) Needs {
	var out Needs
	for _, r := range c.results(in) {
		if n := r.facts.network; n != nil && n.Status.VNI == 0 && !n.Spec.External {
			out.VNIs = append(out.VNIs, r.facts.key)
		}
		out.Identities = append(out.Identities, r.identities...)
		out.Blocks = append(out.Blocks, r.blocks...)
		out.Addresses = append(out.Addresses, r.addresses...)
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
	for _, s := range in.Services {
		if s.Spec.ExternalName != "" {
			out.Names = append(out.Names, s.Spec.ExternalName)
		}
	}
	slices.Sort(out.Names)
	out.Names = slices.Compact(out.Names)
	for _, p := range in.Policies {
		for uri := range c.parse(p).keys {
			if !strings.HasPrefix(uri, inlineKeys) {
				out.KeySets = append(out.KeySets, uri)
			}
		}
	}
	slices.Sort(out.KeySets)
	out.KeySets = slices.Compact(out.KeySets)
	return out
}

// joints gives the joint result of every Network, sorted by key.
func (c *Compiler) joints(results []*result) []*joint {
	out := make([]*joint, len(results))
	for i, r := range results {
		out[i] = c.memory.joints[r.facts.key]
	}
	return out
}

// results gives the result of every Network, sorted by key.
func (c *Compiler) results(in *Input) []*result {
	m := c.memory
	m.learn(in)
	if m.all || m.renamed || m.serviced {
		c.dangling = map[*v1alpha1.Policy][]v1alpha1.Problem{}
		m.renamed, m.serviced = false, false
	}
	c.forget(in)
	c.refresh()
	var out []*result
	for _, name := range sortedNames(m.buckets) {
		out = append(out, m.buckets[name].results...)
	}
	return out
}

// forget drops what is remembered of Policies that are gone.
func (c *Compiler) forget(in *Input) {
	if len(c.parsed) <= 2*len(in.Policies)+64 {
		return
	}
	for p := range c.parsed {
		if in.Policies[Key{p.Namespace, p.Name}] != p {
			delete(c.parsed, p)
			delete(c.dangling, p)
		}
	}
}

func (c *Compiler) parse(p *v1alpha1.Policy) *parsedPolicy {
	out := c.parsed[p]
	if out == nil {
		out = parsePolicy(p)
		c.parsed[p] = out
	}
	return out
}
