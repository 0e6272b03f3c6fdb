package v1alpha1

import (
	"fmt"
	"regexp"
)

var trustDomain = regexp.MustCompile(`^[a-z0-9._-]*$`)

// ValidateDomain says what is wrong with a Domain.
func ValidateDomain(d *Domain) []Problem {
	j := newJudge("Domain", d.Namespace, d.Name, false)
	if len(d.Name) > 63 {
		j.add(CodeTooMuch, "metadata.name", "choose a shorter name", "a Domain name has at most 63 characters")
	}
	j.trustDomain("spec.trustDomain", d.Spec.TrustDomain)
	j.length("spec.description", d.Spec.Description, 1024)
	j.number("spec.svidLifeSeconds", d.Spec.SVIDLifeSeconds, MinSVIDLife, DefaultSVIDLife)
	if j.count("spec.federates", len(d.Spec.Federates), 64) {
		for i, f := range d.Spec.Federates {
			j.federation(fmt.Sprintf("spec.federates[%d]", i), f, d.Name)
		}
	}
	j.mtls("spec.mtls", d.Spec.MTLS)
	j.authorizers("spec.authorizers", d.Spec.Authorizers)
	return j.problems
}

func (j *judge) trustDomain(field, name string) {
	j.length(field, name, 255)
	if !trustDomain.MatchString(name) {
		j.add(CodeName, field, "use lower case letters, digits, '.', '_' and '-'", "%q is not a trust domain", name)
	}
}

func (j *judge) federation(field string, f Federation, self string) {
	switch {
	case (f.Domain == "") == (f.TrustDomain == ""):
		j.add(CodeFederation, field, "write domain for a Domain of this installation, or trustDomain and bundle", "it names not exactly one other")
		return
	case f.Domain == self:
		j.add(CodeFederation, field+".domain", "remove the entry", "a Domain does not federate with itself")
		return
	case f.Domain != "":
		j.length(field+".domain", f.Domain, 63)
		if f.Bundle != "" {
			j.add(CodeFederation, field+".bundle", "remove the bundle, or write trustDomain instead of domain", "a Domain of this installation has no bundle here: the control plane knows it")
		}
		return
	}
	j.trustDomain(field+".trustDomain", f.TrustDomain)
	if f.Bundle == "" {
		j.add(CodeFederation, field+".bundle", "write the bundle of the trust domain", "the bundle of a foreign trust domain is missing")
		return
	}
	j.length(field+".bundle", f.Bundle, 64<<10)
	if _, err := ParseBundle(f.Bundle); err != nil {
		j.add(CodeBundle, field+".bundle", "give certificates of CAs as PEM, or a SPIFFE bundle as JSON", "it cannot be read: %v", err)
	}
}
