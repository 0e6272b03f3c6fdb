package compile

import (
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// fate is what became of one Policy in one Network.
type fate struct {
	selected bool
	// rules by direction and index: "" when the rule can match.
	rules [2][]verdict
}

// verdict says whether a rule of a Policy has an effect in a Network.
type verdict struct {
	miss     miss
	shadowed policy.RuleID
}

// resolvedPolicy is a Policy as the Network sees it.
type resolvedPolicy struct {
	*parsedPolicy
	rules [2][]policy.Rule
}

// policies makes the sets of the Network's identities and gives each host
// those of its own. Identities that the same Policies select share one list.
func (d *draft) policies() {
	if !d.live {
		return
	}
	all := d.resolveAll()
	numbers := make([]policy.Identity, 0, len(d.used))
	for n := range d.used {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	made := map[string][2]policy.Set{}
	sets := make(map[policy.Identity][2]policy.Set, len(numbers))
	for _, n := range numbers {
		mask := d.selectedBy(n, all)
		pair, ok := made[string(mask)]
		if !ok {
			pair = [2]policy.Set{d.set(policy.Ingress, all, mask), d.set(policy.Egress, all, mask)}
			made[string(mask)] = pair
		}
		sets[n] = pair
	}
	for _, h := range d.hosts {
		for _, n := range h.who {
			for dir, s := range sets[n] {
				h.sets = append(h.sets, setRow{snapshot.PolicyKey{VNI: d.vni, Identity: n, Direction: policy.Direction(dir)}, s})
			}
		}
	}
}

func (d *draft) resolveAll() []resolvedPolicy {
	out := make([]resolvedPolicy, len(d.f.project.policies))
	d.fates = make([]fate, len(out))
	for i, p := range d.f.project.policies {
		out[i].parsedPolicy = d.c.parse(p)
		for dir := range out[i].parsedPolicy.rules {
			parsed := out[i].parsedPolicy.rules[dir]
			out[i].rules[dir] = make([]policy.Rule, len(parsed))
			d.fates[i].rules[dir] = make([]verdict, len(parsed))
			for r := range parsed {
				rule, why := d.resolve(out[i].parsedPolicy, p.Namespace, &parsed[r])
				out[i].rules[dir][r] = rule
				d.fates[i].rules[dir][r].miss = why
			}
		}
	}
	return out
}

// selectedBy says for each Policy with one byte whether it selects the
// identity in this Network.
func (d *draft) selectedBy(n policy.Identity, all []resolvedPolicy) []byte {
	i, ok := slices.BinarySearchFunc(d.f.project.who, n, func(w *who, n policy.Identity) int { return int(int64(w.row.Number) - int64(n)) })
	mask := make([]byte, len(all))
	if !ok {
		return mask
	}
	w := d.f.project.who[i]
	for j := range all {
		p := &all[j]
		switch {
		case len(p.networks) > 0 && !slices.Contains(p.networks, d.f.key.Name),
			p.tier != policy.Project && len(p.projects) > 0 && !slices.Contains(p.projects, d.f.key.Project),
			!p.subject.broken && !p.subject.matches(w.labels):
			continue
		}
		mask[j] = 1
		d.fates[j].selected = true
	}
	return mask
}

// set puts the rules of the selected Policies in the order in which they are
// asked. all is in that order but for deny before allow in tier project.
func (d *draft) set(dir policy.Direction, all []resolvedPolicy, mask []byte) policy.Set {
	s := policy.Set{Default: d.lastWord()}
	add := func(tier policy.Tier, want func(policy.Action) bool) {
		for i := range all {
			p := &all[i]
			if mask[i] == 0 || p.tier != tier || !p.selects[dir] {
				continue
			}
			for _, r := range p.rules[dir] {
				// A broken subject selects everybody, but only to deny.
				if want(r.Action) && !(p.subject.broken && r.Action != policy.Deny) {
					s.Rules = append(s.Rules, r)
				}
			}
		}
	}
	every := func(policy.Action) bool { return true }
	deny := func(a policy.Action) bool { return a == policy.Deny }
	add(policy.Admin, every)
	add(policy.Project, deny)
	add(policy.Project, func(a policy.Action) bool { return a != policy.Deny })
	add(policy.Baseline, every)
	for i := range all {
		p := &all[i]
		if mask[i] == 0 || p.tier != policy.Project || !p.selects[dir] {
			continue
		}
		// The first Policy that selects the Workload gives its name.
		isolated := policy.RuleID("isolated/" + p.key.String() + "/" + dir.String())
		if !p.audit {
			s.Isolated, s.AuditIsolated = isolated, ""
			break
		}
		if s.AuditIsolated == "" {
			s.AuditIsolated = isolated
		}
	}
	d.shadows(dir, all, mask, &s)
	return s
}

func (d *draft) lastWord() policy.DefaultRule {
	allow := d.f.network.Spec.Default != v1alpha1.DefaultDeny
	word := v1alpha1.DefaultDeny
	if allow {
		word = v1alpha1.DefaultOpen
	}
	return policy.DefaultRule{ID: policy.RuleID("default/" + d.f.key.String() + "/" + word), Allow: allow}
}
