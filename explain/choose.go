package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/snapshot/policy"
)

// maxWays bounds how many ways of one packet are looked at.
const maxWays = 1024

// choices replays a walk once for each way that a hash may send it: every
// pick is one wheel, and turn moves to the next setting of all wheels.
type choices struct {
	set, sizes []int
	at         int
}

// pick is the choice of this walk among n.
func (c *choices) pick(n int) int {
	if c.at == len(c.set) {
		c.set, c.sizes = append(c.set, 0), append(c.sizes, n)
	}
	c.at++
	return c.set[c.at-1]
}

// turn prepares the next walk; false: all ways were walked.
func (c *choices) turn() bool {
	for n := len(c.set); n > 0; n-- {
		if c.set[n-1]++; c.set[n-1] < c.sizes[n-1] {
			c.set, c.sizes, c.at = c.set[:n], c.sizes[:n], 0
			return true
		}
	}
	return false
}

// Way is one of several ways that a packet can take, where a hash of its
// addresses and ports decides.
type Way struct {
	// Backend of the Service or FloatingIP, address or address:port.
	Backend  string   `json:"backend,omitempty"`
	Workload string   `json:"workload,omitempty"`
	Node     string   `json:"node,omitempty"`
	Via      []string `json:"via,omitempty"`
	// Region of the addresses that a DNS name may have.
	Region string `json:"region,omitempty"`
	// Cluster of the route that leads here.
	Cluster string `json:"cluster,omitempty"`
	Allow   bool   `json:"allow"`
	Proxy   bool   `json:"proxy,omitempty"`
	// Decides says who does it, Status what a proxy answers by itself, as in the
	// Answer.
	Decides     string        `json:"decides,omitempty"`
	Status      int           `json:"status,omitempty"`
	Rule        policy.RuleID `json:"rule,omitempty"`
	EgressRule  policy.RuleID `json:"egressRule,omitempty"`
	IngressRule policy.RuleID `json:"ingressRule,omitempty"`
}

// String names the way for people.
func (w Way) String() string {
	var parts []string
	for _, s := range []string{w.Workload, w.Backend, w.Region} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if len(w.Via) > 0 {
		parts = append(parts, "via "+strings.Join(w.Via, ", "))
	}
	return strings.Join(parts, " ")
}

// way sums a walk up.
func (a *Answer) way() Way {
	w := Way{Backend: a.Backend, Via: a.Via, Region: a.region, Allow: a.Allow, Proxy: a.Proxy, Decides: a.Decides, Rule: a.Rule, EgressRule: a.EgressRule, IngressRule: a.IngressRule}
	if d := a.Destination; d != nil && d.Workload != "" {
		w.Workload, w.Node = d.Project+"/"+d.Workload, d.Node
	}
	if a.Mesh != nil {
		w.Cluster, w.Status = a.Mesh.Cluster, a.Mesh.Status
	}
	return w
}

// outcome is what makes two ways the same to whoever asks.
type outcome struct {
	allow, proxy               bool
	shadowed, shadow           bool
	rule, egress, ingress, srl policy.RuleID
}

func (a *Answer) outcome() outcome {
	o := outcome{allow: a.Allow, proxy: a.Proxy, rule: a.Rule, egress: a.EgressRule, ingress: a.IngressRule}
	if a.Shadow != nil {
		o.shadowed, o.shadow, o.srl = true, a.Shadow.Allow, a.Shadow.Rule
	}
	return o
}

// every walks all ways and makes one Answer of them. It allows only what
// every way allows.
func every(walk func(*choices) Answer) Answer {
	var c choices
	var groups [][]Answer // of the same outcome
	var ways []Way
	for more := true; more && len(ways) < maxWays; more = c.turn() {
		c.at = 0
		a := walk(&c)
		ways = append(ways, a.way())
		i := slices.IndexFunc(groups, func(g []Answer) bool { return g[0].outcome() == a.outcome() })
		if i < 0 {
			groups = append(groups, []Answer{a})
		} else if len(groups[i]) < 4 {
			groups[i] = append(groups[i], a)
		}
	}
	out := groups[0][0]
	if len(ways) == 1 {
		return out
	}
	out.Ways = ways
	worst := func(bad func(*Answer) bool) int {
		return slices.IndexFunc(groups, func(g []Answer) bool { return bad(&g[0]) })
	}
	i := worst(func(a *Answer) bool { return !a.Allow && !a.Proxy })
	if i < 0 {
		i = worst(func(a *Answer) bool { return !a.Allow })
	}
	if i > 0 {
		steps := out.Steps
		out = groups[i][0]
		out.Steps, out.Ways = steps, ways
	}
	common := commonSteps(groups, out.Steps)
	var steps []Step
	steps = append(steps, out.Steps[:common]...)
	for _, g := range groups {
		a := g[0]
		text := "if it is " + a.way().String()
		if len(groups) == 1 {
			text = "with " + a.way().String() + "; every other way ends the same"
		}
		steps = append(steps, Step{Name: StepChoice, Result: a.result(), Rule: a.Rule, Text: text})
		steps = append(steps, a.Steps[common:]...)
	}
	out.Steps = steps
	if len(groups) > 1 {
		out.differ(ways)
	}
	if len(ways) == maxWays {
		out.Reason += fmt.Sprintf(" (of its many ways, the first %d were looked at)", maxWays)
	}
	return out
}

// differ says that the hash decides about more than the way.
func (a *Answer) differ(ways []Way) {
	var yes, no, asked []string
	for _, w := range ways {
		switch {
		case w.Allow:
			yes = append(yes, w.String())
		case w.Proxy:
			asked = append(asked, fmt.Sprintf("%s (%s)", w.String(), w.Rule))
		default:
			no = append(no, fmt.Sprintf("%s (%s)", w.String(), w.Rule))
		}
	}
	switch {
	case len(asked) > 0 && len(no) == 0 && len(yes) == 0:
		a.Reason = "a proxy decides about each request, whichever way it takes: " + few(asked)
	case len(asked) > 0 && len(no) == 0:
		a.Reason = fmt.Sprintf("it depends on which way it takes: a proxy decides about each request for %s; allowed for %s", few(asked), few(yes))
	case len(asked) > 0:
		yes = append(yes, "some requests to "+few(asked))
		fallthrough
	case len(yes) > 0 && len(no) > 0:
		a.Depends = true
		a.Reason = fmt.Sprintf("it depends on which way the packet takes: allowed for %s; denied for %s", few(yes), few(no))
	case len(yes) == 0:
		a.Reason = "denied whichever way it takes: " + few(no)
	default:
		a.Reason = "allowed whichever way it takes, by different rules"
	}
}

func few(s []string) string {
	const most = 8
	if len(s) > most {
		return strings.Join(s[:most], ", ") + fmt.Sprintf(" and %d more", len(s)-most)
	}
	return strings.Join(s, ", ")
}

// commonSteps counts the steps at the start that all groups share.
func commonSteps(groups [][]Answer, first []Step) int {
	n := len(first)
	for _, g := range groups {
		for _, a := range g {
			n = min(n, len(a.Steps))
			for i := range n {
				if a.Steps[i] != first[i] {
					n = i
					break
				}
			}
		}
	}
	return n
}

// at writes an address with its port, if any.
func at(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}
