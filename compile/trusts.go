package compile

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// nodeTrustDomain is the trust domain of the nodes themselves.
const nodeTrustDomain = "moire"

// trusts is what every Domain believes. It is never changed after it was made.
type trusts struct {
	domains map[string]*v1alpha1.Domain
	bundles map[string]*v1alpha1.Bundle
	// by Domain: its own Trust first, then those that it names. A Domain without
	// a CA has none.
	by       map[string][]snapshot.Trust
	problems []v1alpha1.Problem
}

// trustsOf judges the Domains.
func trustsOf(in *Input) *trusts {
	t := &trusts{domains: maps.Clone(in.Domains), bundles: maps.Clone(in.Bundles), by: map[string][]snapshot.Trust{}}
	owners := t.owners()
	for _, name := range sortedNames(in.Domains) {
		d := in.Domains[name]
		own := TrustDomain(d)
		if owners[own] != name {
			continue // said by owners
		}
		federates := t.federates(d, owners)
		bundle := in.Bundles[name]
		if bundle == nil {
			continue // the CA is being made
		}
		self := snapshot.Trust{Name: own, TrustDomain: own, Domain: name, Roots: bundle.Roots, Keys: bundle.Keys}
		for _, f := range federates {
			self.Federates = append(self.Federates, f.Name)
		}
		t.by[name] = append([]snapshot.Trust{self}, federates...)
	}
	// What one Domain sees of another is all that there is of it.
	for name, list := range t.by {
		for i, f := range list[1:] {
			if f.Domain != "" {
				list[i+1] = t.by[f.Domain][0]
			}
		}
		t.by[name] = list
	}
	return t
}

// owners says whose each trust domain is: it is the Domain's that came first.
// The others have no certificates, or one Domain could speak for another.
func (t *trusts) owners() map[string]string {
	owners := map[string]string{}
	elder := slices.SortedFunc(maps.Values(t.domains), compareAge[*v1alpha1.Domain])
	for _, d := range elder {
		own := TrustDomain(d)
		field := "spec.trustDomain"
		if first, taken := owners[own]; taken {
			t.problem(codeTrustTaken, d, field, fmt.Sprintf("%s is the trust domain of Domain %s, so nobody in this one gets a certificate", own, first), "choose another trust domain")
			continue
		}
		if own == nodeTrustDomain {
			t.problem(codeTrustTaken, d, field, own+" is the trust domain of the nodes, so nobody in this Domain gets a certificate", "choose another trust domain")
			continue
		}
		owners[own] = d.Name
	}
	return owners
}

func (t *trusts) problem(code string, d *v1alpha1.Domain, field, reason, fix string) {
	t.problems = append(t.problems, about(code, "Domain "+d.Name, field, reason, fix))
}

// federates are the Trusts that the Domain names, sorted by name. Of a Domain
// of this installation only the name is there.
func (t *trusts) federates(d *v1alpha1.Domain, owners map[string]string) []snapshot.Trust {
	out := map[string]snapshot.Trust{}
	for i, f := range d.Spec.Federates {
		field := fmt.Sprintf("spec.federates[%d]", i)
		if f.Domain != "" {
			if other := t.partner(d, f.Domain, field+".domain"); other != nil && owners[TrustDomain(other)] == other.Name {
				out[f.Domain] = snapshot.Trust{Name: TrustDomain(other), Domain: other.Name}
			}
			continue
		}
		if owner, ours := owners[f.TrustDomain]; ours || f.TrustDomain == nodeTrustDomain {
			t.problem(codeFederation, d, field+".trustDomain", f.TrustDomain+" is a trust domain of this installation, for which the control plane itself vouches", "name the Domain instead: domain: "+cmp.Or(owner, "NAME"))
			continue
		}
		bundle, err := v1alpha1.ParseBundle(f.Bundle)
		if err != nil {
			continue // validation has said so
		}
		name := f.TrustDomain + "/" + d.Name
		if _, twice := out[name]; twice {
			t.problem(codeFederation, d, field+".trustDomain", f.TrustDomain+" is there twice", "put all of its roots into one bundle")
			continue
		}
		out[name] = snapshot.Trust{Name: name, TrustDomain: f.TrustDomain, Roots: bundle.Roots, Keys: bundle.Keys}
	}
	return slices.SortedFunc(maps.Values(out), func(a, b snapshot.Trust) int { return cmp.Compare(a.Name, b.Name) })
}

// partner is another Domain with which this one federates, if both agree and
// the other has a CA.
func (t *trusts) partner(d *v1alpha1.Domain, name, field string) *v1alpha1.Domain {
	other := t.domains[name]
	switch {
	case other == nil:
		t.problem(codeFederation, d, field, "Domain "+name+" does not exist, so nobody of it is believed", "create it or correct the name")
		return nil
	case !slices.ContainsFunc(other.Spec.Federates, func(f v1alpha1.Federation) bool { return f.Domain == d.Name }):
		t.problems = append(t.problems, warn(about(codeFederation, "Domain "+d.Name, field, "Domain "+name+" does not name this one, so neither believes the other",
			"have its admins add the entry domain: "+d.Name+" to spec.federates")))
		return nil
	case t.bundles[name] == nil:
		return nil
	}
	return other
}

// on are the Trusts of a node that meets these projects.
func (t *trusts) on(projects []*project) map[string]snapshot.Trust {
	var out map[string]snapshot.Trust
	for _, p := range projects {
		for _, trust := range t.by[p.domain] {
			set(&out, trust.Name, trust)
		}
	}
	return out
}

// sameBundle compares what a CA shows.
func sameBundle(a, b *v1alpha1.Bundle) bool {
	return a == b || a != nil && b != nil && slices.EqualFunc(a.Roots, b.Roots, bytes.Equal) && bytes.Equal(a.Keys, b.Keys)
}

// learnTrusts judges the Domains anew when they or their CAs are others.
func (c *Compiler) learnTrusts(in *Input) {
	if c.trusts == nil || !maps.Equal(c.trusts.domains, in.Domains) || !maps.EqualFunc(c.trusts.bundles, in.Bundles, sameBundle) {
		c.trusts = trustsOf(in)
	}
}
