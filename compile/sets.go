package compile

import (
	"fmt"
	"slices"
	"strings"

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

// policyFate is the fate of one Policy.
type policyFate struct {
	policy *v1alpha1.Policy
	fate
}

// verdict says whether a rule of a Policy has an effect in a Network.
type verdict struct {
	miss     miss
	shadowed policy.RuleID
}

// resolvedPolicy is a Policy as the Network sees it.
type resolvedPolicy struct {
	*parsedPolicy
	// rules by direction and index; one rule may become several, because a
	// Service has ports of its own.
	rules [2][][]policy.Rule
}

// policies makes the sets of the Network's identities and gives each host
// those of its own. Identities that the same Policies select share one list.
func (d *jointDraft) policies() {
	base := d.facts.base
	sets := make(map[policy.Identity][2]policy.Set, len(base.used))
	for _, p := range append([]*project{base.facts.project}, base.facts.guests...) {
		d.projectSets(p, sets)
	}
	for node, h := range base.hosts {
		for _, n := range h.who {
			for dir, s := range sets[n] {
				d.hosts[node].sets = append(d.hosts[node].sets, setRow{snapshot.PolicyKey{VNI: base.row.VNI, Identity: n, Direction: policy.Direction(dir)}, s})
			}
		}
	}
}

// projectSets makes the sets of the identities of one project.
func (d *jointDraft) projectSets(p *project, sets map[policy.Identity][2]policy.Set) {
	all, fates := d.resolveAll(p)
	made := map[string][2]policy.Set{}
	for _, n := range d.facts.base.used {
		w := p.byNumber(n)
		if w == nil {
			continue
		}
		mask := d.selectedBy(w, p, all, fates)
		group := string(mask) + equalValues(all, mask, w)
		pair, ok := made[group]
		if !ok {
			pair = [2]policy.Set{d.set(policy.Ingress, all, mask, w, fates), d.set(policy.Egress, all, mask, w, fates)}
			made[group] = pair
		}
		sets[n] = pair
		d.untold(n, pair)
	}
	for i := range fates {
		for uri, k := range all[i].keys {
			if fates[i].selected {
				set(&d.keys, uri, k)
			}
		}
		d.fates = append(d.fates, policyFate{p.policies[i], fates[i]})
	}
}

func (p *project) byNumber(n policy.Identity) *who {
	i, ok := slices.BinarySearchFunc(p.who, n, func(w *who, n policy.Identity) int { return int(int64(w.row.Number) - int64(n)) })
	if !ok {
		return nil
	}
	return p.who[i]
}

func (d *jointDraft) resolveAll(subject *project) ([]resolvedPolicy, []fate) {
	out := make([]resolvedPolicy, len(subject.policies))
	fates := make([]fate, len(out))
	for i, p := range subject.policies {
		out[i].parsedPolicy = d.c.parse(p)
		for dir := range out[i].parsedPolicy.rules {
			parsed := out[i].parsedPolicy.rules[dir]
			out[i].rules[dir] = make([][]policy.Rule, len(parsed))
			fates[i].rules[dir] = make([]verdict, len(parsed))
			for r := range parsed {
				out[i].rules[dir][r], fates[i].rules[dir][r].miss = d.resolve(out[i].parsedPolicy, subject, policy.Direction(dir), &parsed[r])
			}
		}
	}
	return out, fates
}

// selectedBy says for each Policy with one byte whether it selects the
// identity in this Network.
func (d *jointDraft) selectedBy(w *who, subject *project, all []resolvedPolicy, fates []fate) []byte {
	here := d.facts.base.facts.key
	mask := make([]byte, len(all))
	for j := range all {
		p := &all[j]
		in := len(p.networks) == 0 || slices.ContainsFunc(p.networks, func(n string) bool {
			return networkOf(subject.name, n) == here || p.tier != policy.Project && n == here.Name
		})
		switch {
		case !in, p.tier != policy.Project && len(p.projects) > 0 && !slices.Contains(p.projects, subject.name),
			!p.subject.broken && !p.subject.matches(w.labels):
			continue
		}
		mask[j] = 1
		fates[j].selected = true
	}
	return mask
}

// equalValues are the values that the identity has of the labels which
// selected rules compare.
func equalValues(all []resolvedPolicy, mask []byte, w *who) string {
	var b strings.Builder
	for i := range all {
		if mask[i] == 0 {
			continue
		}
		for dir := range all[i].parsedPolicy.rules {
			for r := range all[i].parsedPolicy.rules[dir] {
				for _, k := range all[i].parsedPolicy.rules[dir][r].equal {
					v, has := w.labels[k]
					fmt.Fprintf(&b, "%t%q", has, v)
				}
			}
		}
	}
	return b.String()
}

// equalTo leaves of the peers those that have the same labels as the identity.
func (d *jointDraft) equalTo(r policy.Rule, keys []string, w *who) policy.Rule {
	peers := make([]policy.Peer, 0, len(r.Peers))
	for _, p := range r.Peers {
		var same []policy.Identity
		for _, n := range p.Identities {
			o := d.facts.who(n)
			if o != nil && !slices.ContainsFunc(keys, func(k string) bool {
				a, has := w.labels[k]
				b, too := o.labels[k]
				return !has || !too || a != b
			}) {
				same = append(same, n)
			}
		}
		if p.Identities = same; len(same) > 0 {
			peers = append(peers, p)
		}
	}
	if len(peers) == 0 {
		peers = []policy.Peer{{}}
	}
	r.Peers = peers
	return r
}

// set puts the rules of the selected Policies in the order in which they are
// asked. all is in that order but, in tier project, for deny before allow and
// packets before requests.
func (d *jointDraft) set(dir policy.Direction, all []resolvedPolicy, mask []byte, w *who, fates []fate) policy.Set {
	s := policy.Set{Default: d.lastWord()}
	add := func(tier policy.Tier, want func(*policy.Rule) bool) {
		for i := range all {
			p := &all[i]
			if mask[i] == 0 || p.tier != tier || !p.selects[dir] {
				continue
			}
			for j, parts := range p.rules[dir] {
				for _, r := range parts {
					// A broken subject selects everybody, but only to deny.
					if !want(&r) || p.subject.broken && r.Action != policy.Deny {
						continue
					}
					if keys := p.parsedPolicy.rules[dir][j].equal; len(keys) > 0 {
						r = d.equalTo(r, keys, w)
					}
					s.Rules = append(s.Rules, r)
				}
			}
		}
	}
	every := func(*policy.Rule) bool { return true }
	add(policy.Admin, every)
	// Of one action, a rule about requests comes last: what the others decide
	// needs no proxy.
	for _, deny := range []bool{true, false} {
		for _, requests := range []bool{false, true} {
			add(policy.Project, func(r *policy.Rule) bool {
				return (r.Action == policy.Deny) == deny && (len(r.Requests) > 0) == requests
			})
		}
	}
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
	shadows(dir, all, mask, fates, &s)
	return s
}

func (d *jointDraft) lastWord() policy.DefaultRule {
	allow := d.facts.base.facts.network.Spec.Default != v1alpha1.DefaultDeny
	word := v1alpha1.DefaultDeny
	if allow {
		word = v1alpha1.DefaultOpen
	}
	return policy.DefaultRule{ID: policy.RuleID("default/" + d.facts.base.facts.key.String() + "/" + word), Allow: allow}
}
