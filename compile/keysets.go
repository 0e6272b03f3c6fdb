package compile

import (
	"fmt"
	"iter"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/policy"
)

// KeyURIs gives the URIs of the JWK sets that a Policy names, with the fields
// that name them.
func KeyURIs(p *v1alpha1.Policy) iter.Seq2[string, string] {
	return func(yield func(field, uri string) bool) {
		for d, rules := range [2][]v1alpha1.Rule{policy.Ingress: p.Spec.Ingress, policy.Egress: p.Spec.Egress} {
			for i := range rules {
				t := rules[i].JWT
				if t != nil && t.JWKSURI != "" && !yield(fmt.Sprintf("spec.%s[%d].jwt.jwksURI", policy.Direction(d), i), t.JWKSURI) {
					return
				}
			}
		}
	}
}
