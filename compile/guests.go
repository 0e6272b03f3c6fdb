package compile

import (
	"cmp"
	"slices"

	"moire.dev/moire/api/v1alpha1"
)

// projectOf finds the owner or a guest of the Network; nil: neither.
func (f *facts) projectOf(name string) *project {
	if name == f.project.name {
		return f.project
	}
	if i, ok := slices.BinarySearchFunc(f.guests, name, func(p *project, n string) int { return cmp.Compare(p.name, n) }); ok {
		return f.guests[i]
	}
	return nil
}

// domainOf is the Domain of the owner or a guest; "" when it has none.
func (f *facts) domainOf(name string) string {
	if p := f.projectOf(name); p != nil {
		return p.domain
	}
	return ""
}

// barred says why Workloads of the project may have no interface in the
// Network; "" when they may. Own ones may have one in every Network that is
// not external.
func (d *draft) barred(project string) string {
	f := d.f
	if f.network == nil {
		return ""
	}
	if f.network.Spec.External {
		return "Network " + f.key.String() + " is external: its addresses are of the underlay, for FloatingIPs, and nothing can be attached to it"
	}
	if project == f.key.Project {
		return ""
	}
	p := f.projectOf(project)
	switch {
	case p == nil:
		return "project " + project + " is not known"
	case p.missing != "":
		return p.missing
	case !consents(f.network, f.project.domain, p.name, p.domain, v1alpha1.ConsentAttach):
		return noConsent(f.key, f.project.domain, p.name, p.domain, v1alpha1.ConsentAttach)
	}
	return ""
}

// consents reports whether the Network lets the project refer to it.
func consents(n *v1alpha1.Network, domain, project, projectDomain, what string) bool {
	if project == n.Namespace {
		return true
	}
	if domain == "" || projectDomain == "" {
		return false
	}
	return slices.ContainsFunc(n.Spec.Consents, func(c v1alpha1.Consent) bool {
		return slices.Contains(c.Purposes(), what) && cmp.Or(c.Domain, domain) == projectDomain && (c.Project == "*" || c.Project == project)
	})
}

// noConsent says what consent is missing, and how to write it.
func noConsent(network Key, domain, project, projectDomain, what string) string {
	how := "{project: " + project + ", for: [" + what + "]}"
	if domain != projectDomain {
		how = "{project: " + project + ", domain: " + projectDomain + ", for: [" + what + "]}"
	}
	return "Network " + network.String() + " does not consent to " + what + " for project " + project + "; its owner would write " + how + " in spec.consents"
}
