package mesh

import (
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Needs says why an interface needs a proxy, for people; "": it needs none.
func Needs(s *snapshot.Snapshot, i *Interface) string {
	e, ok := EndpointOf(s, i)
	if !ok {
		return "" // closed
	}
	if g := gatewayAt(s, i); g != nil {
		return "Gateway " + g.Project + "/" + g.Name
	}
	if e.Mode != snapshot.Off {
		return "mtls " + e.Mode.String()
	}
	for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		set := s.Policies[snapshot.PolicyKey{VNI: i.VNI, Identity: e.Identity, Direction: d}]
		if n := slices.IndexFunc(set.Rules, func(r policy.Rule) bool { return len(r.Requests) > 0 }); n >= 0 {
			return string(set.Rules[n].ID)
		}
	}
	var first snapshot.FrontendKey
	why := ""
	for k, f := range s.Frontends {
		if k.Addr.VNI != i.VNI || k.Protocol != policy.TCP || k.Project != "" && k.Project != e.Project {
			continue
		}
		if why == "" || k.Compare(first) < 0 {
			first, why = k, f.Why
		}
	}
	return why
}
