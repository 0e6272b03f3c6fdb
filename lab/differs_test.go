package lab

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"moire.dev/moire/explain"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/policy"
)

// differs says how what happened, and what records tell of it, is not what
// explain says; "": it is. Of several ways it has to be one.
func differs(a *explain.Answer, m *met, told told) string {
	if a.Error != "" {
		return "explain cannot tell: " + a.Error
	}
	var all []string
	for _, w := range waysOf(a) {
		why := wayDiffers(a, w, m, told)
		if why == "" {
			return ""
		}
		if why += fmt.Sprintf(" (explain: %+v)", w); !slices.Contains(all, why) {
			all = append(all, why)
		}
	}
	return strings.Join(all, "; ") + "\nexplain: " + a.Reason + "\nrecords: " + told.String()
}

// waysOf an Answer, of which most have only one.
func waysOf(a *explain.Answer) []explain.Way {
	if len(a.Ways) > 0 {
		return a.Ways
	}
	w := explain.Way{Backend: a.Backend, Allow: a.Allow, Proxy: a.Proxy, Decides: a.Decides, Rule: a.Rule, EgressRule: a.EgressRule, IngressRule: a.IngressRule}
	if d := a.Destination; d != nil {
		w.Workload = d.Project + "/" + d.Workload
	}
	if a.Mesh != nil {
		w.Cluster, w.Status = a.Mesh.Cluster, a.Mesh.Status
	}
	return []explain.Way{w}
}

func wayDiffers(a *explain.Answer, w explain.Way, m *met, told told) string {
	switch {
	case !w.Allow:
		return denialDiffers(w, m, told)
	case w.Status != 0:
		if len(m.reached) > 0 || m.status != w.Status {
			return fmt.Sprintf("a proxy answers %d", w.Status)
		}
		return cmp.Or(told.never(record.Deny), told.choice("", a.Mesh))
	case !slices.Equal(m.reached, []string{w.Workload}) || !m.answer || m.status != 0 && m.status != 200:
		return "it goes to " + w.Workload
	case a.Mesh != nil && a.Mesh.Path != "" && len(a.Ways) == 0 && (m.path != a.Mesh.Path || m.host != a.Mesh.Host):
		return fmt.Sprintf("it arrives as %s of %s", a.Mesh.Path, a.Mesh.Host)
	}
	if why := partsDiffer(a, told); why != "" {
		return why
	}
	for _, side := range []struct {
		direction string
		rule      policy.RuleID
	}{{"egress", w.EgressRule}, {"ingress", w.IngressRule}} {
		got := told.rules(side.direction)
		if got == nil && side.direction == "ingress" && told.pooled() {
			continue
		}
		if !slices.Equal(got, []string{string(side.rule)}) {
			return fmt.Sprintf("the %s rule is %s, and records have %q", side.direction, side.rule, got)
		}
	}
	return told.choice(w.Cluster, a.Mesh)
}

// partsDiffer says whose proxy takes part against what explain says, where that is the
// same for all ways. One proxy asks for both ends of a node, also where only one needs it.
func partsDiffer(a *explain.Answer, told told) string {
	if len(a.Ways) > 0 {
		return ""
	}
	for _, side := range []struct{ name, direction string }{{explain.AtSource, "egress"}, {explain.AtDestination, "ingress"}} {
		needed := a.Mesh != nil && slices.ContainsFunc(a.Mesh.Proxies, func(p explain.Proxy) bool { return p.Side == side.name })
		took, memory := false, false
		for _, x := range append(told.own, told.between...) {
			if x.Observer == record.AtProxy && x.Direction == side.direction && (side.name == explain.AtDestination || slices.ContainsFunc(told.own, func(o record.Record) bool { return o.ID == x.ID })) {
				took, memory = true, memory || inMemory(x)
			}
		}
		if took != needed && !(took && memory) && !(side.name == explain.AtDestination && told.pooled()) {
			return fmt.Sprintf("that the proxy of the %s takes part is %t", side.name, needed)
		}
	}
	return ""
}

// pooled: the request went over a connection of the proxy of the source that it keeps; the
// other side, which does not look into it, tells of it when it ends.
func (all told) pooled() bool {
	read := false
	for _, x := range all.own {
		if x.Observer == record.AtProxy && x.Direction == "ingress" {
			return false
		}
		read = read || x.Observer == record.AtProxy && x.Request.Method != ""
	}
	return read
}

// denialDiffers is about a way that is denied.
func denialDiffers(w explain.Way, m *met, told told) string {
	if len(m.reached) > 0 {
		return "it is denied"
	}
	for _, x := range append(told.own, told.between...) {
		if x.Drop == "not-http" && (x.Rule == "" || x.Rule == string(w.EgressRule)) {
			return "" // bytes do not come as far as requests would
		}
		if !refuses(w, x, m.status) {
			continue
		}
		if by := explain.ByProxy; w.Decides != "" && (x.Observer == record.AtProxy) != (w.Decides == by) && !inMemory(x) {
			return fmt.Sprintf("it is denied by %s", w.Decides)
		}
		return ""
	}
	return "no record tells of the denial"
}

// refuses: the record tells of the denial that explain means.
func refuses(w explain.Way, x record.Record, status int) bool {
	denied := x.Verdict == record.Deny
	switch {
	case w.Proxy: // bytes that are no request
		return denied && x.Drop == "not-http"
	case w.Rule == explain.NoRule, w.Rule == explain.BadRequest, w.Rule == explain.NoBackend && w.Status != 0:
		return x.Request != nil && status != 0 && x.Request.Status == status && (w.Status == 0 || w.Status == status)
	case w.Rule == explain.NoBackend && x.Observer == record.AtProxy:
		return x.Request != nil && slices.Contains(x.Request.Flags, "UH")
	case strings.HasPrefix(string(w.Rule), "closed/"):
		return denied && "closed/"+x.Drop == string(w.Rule)
	}
	return denied && (x.Rule == string(w.Rule) || x.IngressRule == string(w.Rule))
}

// inMemory: both ends are on one node, where one proxy may have asked for both.
func inMemory(x record.Record) bool {
	return x.Observer == record.AtProxy && x.Direction == "ingress" && x.Source.Node == x.Destination.Node
}

// never: no record has the verdict.
func (all told) never(verdict string) string {
	for _, x := range all.own {
		if x.Verdict == verdict {
			return fmt.Sprintf("a record says %s by %s %s", verdict, x.Rule, x.Drop)
		}
	}
	return ""
}

// rules that decided in a direction, as its own records tell, else those between.
// Where a proxy asked, the kernel only says which rule wants it.
func (all told) rules(direction string) []string {
	for _, records := range [][]record.Record{all.own, all.between} {
		for _, byProxy := range []bool{true, false} {
			var out []string
			for _, x := range records {
				in, rule := x.Direction == direction, x.Rule
				switch x.Observer {
				case record.AtSource:
					in = direction == "egress"
				case record.AtDestination:
					in = direction == "ingress"
				case record.AtBoth:
					if in = true; direction == "ingress" {
						rule = x.IngressRule
					}
				}
				if in && (x.Observer == record.AtProxy) == byProxy {
					out = append(out, rule)
				}
			}
			if len(out) > 0 {
				slices.Sort(out)
				return slices.Compact(out)
			}
		}
	}
	return nil
}

// choice compares what the proxy of the source chose for a request: cluster, and, which is the
// same for all ways, route and its rule.
func (all told) choice(cluster string, m *explain.Mesh) string {
	for _, x := range all.own {
		if x.Request == nil || x.Direction != "egress" {
			continue
		}
		if cluster != "" && x.Request.Cluster != cluster {
			return fmt.Sprintf("the cluster is %s, and a record has %s", cluster, x.Request.Cluster)
		}
		if m != nil && x.Request.Method != "" && (x.Route != m.Route || x.Request.Rule != m.Rule) {
			return fmt.Sprintf("the route is %s, rule %s, and a record has %s, rule %s", m.Route, m.Rule, x.Route, x.Request.Rule)
		}
	}
	return ""
}

// String is what matters of them.
func (all told) String() string {
	var b strings.Builder
	for _, x := range append(all.own, all.between...) {
		fmt.Fprintf(&b, "\n  %s %s %s at %s: %s:%d -> %s:%d %s by %q, %q %s", x.Kind, x.Observer, x.Direction, x.Node, x.Source.Workload, x.Source.Port, x.Destination.Workload, x.Destination.Port, x.Verdict, x.Rule, x.IngressRule, x.Drop)
		if q := x.Request; q != nil {
			fmt.Fprintf(&b, " %s %s %s %d %q cluster %s", q.Protocol, q.Method, q.Path, q.Status, q.Flags, q.Cluster)
		}
	}
	return b.String()
}
