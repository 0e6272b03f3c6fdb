package compile

import (
	"fmt"
	"strings"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/policy"
)

// life is what became of one Policy in all Networks where it may hold.
type life struct {
	networks int
	selected int
	rules    [2][]verdict
	alive    [2][]bool
	hidden   [2][]policy.RuleID
}

// policyProblems says which Policies refer to what is not there, select
// nobody or have rules that never decide.
func (c *Compiler) policyProblems(in *Input, results []*joint) []v1alpha1.Problem {
	var out []v1alpha1.Problem
	var names map[Key]bool
	for _, p := range in.Policies {
		out = append(out, c.parse(p).problems...)
		told, known := c.dangling[p]
		if !known {
			if names == nil {
				names = networkNames(in)
			}
			told = (&references{in: in, p: p, names: names}).dangling()
			c.dangling[p] = told
		}
		out = append(out, told...)
	}
	for _, b := range c.memory.buckets {
		out = append(out, b.problems...)
	}
	if len(c.memory.wide) > 0 {
		out = append(out, c.lives(results, func(p *v1alpha1.Policy) bool { return tierOf(p) != policy.Project })...)
	}
	return out
}

// lives follows the Policies that are wanted through the results.
func (c *Compiler) lives(results []*joint, wanted func(*v1alpha1.Policy) bool) []v1alpha1.Problem {
	lives := map[*v1alpha1.Policy]*life{}
	for _, r := range results {
		for i := range r.fates {
			p := r.fates[i].policy
			if !wanted(p) {
				continue
			}
			l := lives[p]
			if l == nil {
				l = newLife(p)
				lives[p] = l
			}
			l.add(&r.fates[i].fate)
		}
	}
	var out []v1alpha1.Problem
	for p, l := range lives {
		out = append(out, l.problems(p, c.parse(p))...)
	}
	return out
}

func newLife(p *v1alpha1.Policy) *life {
	l := &life{}
	for d, n := range [2]int{policy.Ingress: len(p.Spec.Ingress), policy.Egress: len(p.Spec.Egress)} {
		l.rules[d], l.alive[d], l.hidden[d] = make([]verdict, n), make([]bool, n), make([]policy.RuleID, n)
	}
	return l
}

func (l *life) add(f *fate) {
	l.networks++
	if !f.selected {
		return
	}
	l.selected++
	for d := range f.rules {
		for i, v := range f.rules[d] {
			switch {
			case v.miss != "":
				if l.rules[d][i].miss == "" {
					l.rules[d][i].miss = v.miss
				}
			case v.shadowed != "" && v.shadowed != shadowNever:
				l.hidden[d][i] = v.shadowed
			default:
				l.alive[d][i] = true
			}
		}
	}
}

func (l *life) problems(p *v1alpha1.Policy, parsed *parsedPolicy) []v1alpha1.Problem {
	if l.selected == 0 {
		field := "spec.subject"
		if p.Spec.Subject == nil {
			field = ""
		}
		return []v1alpha1.Problem{warn(about(codeNobodySelected, policyName(p), field, "the Policy selects no Workload",
			"correct the selector, unless the Workloads are still to come"))}
	}
	var out []v1alpha1.Problem
	for d := range l.alive {
		for i, alive := range l.alive[d] {
			field := parsed.rules[d][i].field
			switch {
			case alive:
			case l.hidden[d][i] != "":
				out = append(out, warn(about(codeShadowed, policyName(p), field,
					fmt.Sprintf("the rule never decides: %s comes before it and matches everything that it matches", l.hidden[d][i]), "remove it, narrow the other or change the order")))
			case l.rules[d][i].miss != "":
				out = append(out, warn(about(codeNeverMatches, policyName(p), field,
					"the rule can never match: "+string(l.rules[d][i].miss), "correct the peers or remove the rule")))
			}
		}
	}
	return out
}

// references looks at the names that one Policy refers to.
type references struct {
	in    *Input
	p     *v1alpha1.Policy
	names map[Key]bool // Domain ("" for any) and name of every Network
	out   []v1alpha1.Problem
}

// networkNames lists the Network names of each Domain.
func networkNames(in *Input) map[Key]bool {
	out := make(map[Key]bool, len(in.Networks))
	for k := range in.Networks {
		out[Key{"", k.Name}] = true
		if d := in.Projects[k.Project]; d != "" {
			out[Key{d, k.Name}] = true
		}
	}
	return out
}

// dangling finds names in the Policy that nothing has.
func (r *references) dangling() []v1alpha1.Problem {
	if s := r.p.Spec.Subject; s != nil {
		for i, n := range s.Networks {
			r.network(fmt.Sprintf("spec.subject.networks[%d]", i), n, "")
		}
		for i, n := range s.Projects {
			r.project(fmt.Sprintf("spec.subject.projects[%d]", i), n)
		}
	}
	for d, rules := range [2][]v1alpha1.Rule{r.p.Spec.Ingress, r.p.Spec.Egress} {
		dir := policy.Direction(d)
		for i := range rules {
			peers, list := rules[i].From, "from"
			if dir == policy.Egress {
				peers, list = rules[i].To, "to"
			}
			for j := range peers {
				field := fmt.Sprintf("spec.%s[%d].%s[%d]", dir, i, list, j)
				if peers[j].Service != "" {
					r.service(field+".service", peers[j].Service, peers[j].Project)
				}
				if peers[j].Project == "" && peers[j].Network == "" {
					continue
				}
				r.project(field+".project", peers[j].Project)
				r.network(field+".network", peers[j].Network, peers[j].Project)
			}
		}
	}
	return r.out
}

func (r *references) warn(code, field, reason, fix string) {
	r.out = append(r.out, warn(about(code, policyName(r.p), field, reason, fix)))
}

func (r *references) project(field, name string) {
	if name == "" || name == "*" {
		return
	}
	d, known := r.in.Projects[name]
	switch {
	case !known:
		r.warn(codeNoProject, field, "project "+name+" does not exist or belongs to no Domain", "correct the name or label the namespace")
	case r.p.Namespace != v1alpha1.SystemNamespace && d != r.in.Projects[r.p.Namespace] && strings.HasPrefix(field, "spec.subject"):
		r.warn(codeNoProject, field, "project "+name+" belongs to another Domain", "a Policy protects only its own Domain; remove it")
	}
}

func (r *references) service(field, name, project string) {
	if project == "" && tierOf(r.p) == policy.Project {
		project = r.p.Namespace
	}
	if project == "" || project == "*" {
		for k := range r.in.Services {
			if k.Name == name {
				return
			}
		}
		project = "any project"
	} else if r.in.Services[Key{project, name}] != nil {
		return
	}
	r.warn(codeNoService, field, "Service "+name+" does not exist in "+project, "create it or correct the name")
}

func (r *references) network(field, name, project string) {
	if name == "" {
		return
	}
	if project == "" && tierOf(r.p) == policy.Project {
		project = r.p.Namespace
	}
	where := "project " + project
	var exists bool
	switch {
	case strings.Contains(name, "/"):
		exists, where = r.in.Networks[networkOf("", name)] != nil, "its project"
	case project != "" && project != "*":
		exists = r.in.Networks[Key{project, name}] != nil
	case r.p.Namespace == v1alpha1.SystemNamespace:
		exists, where = r.names[Key{"", name}], "any project"
	default:
		exists, where = r.names[Key{r.in.Projects[r.p.Namespace], name}], "any project of the Domain"
	}
	if !exists {
		r.warn(codeNoPeerNetwork, field, "Network "+name+" does not exist in "+where, "create it or correct the name")
	}
}
