package compile

import (
	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// limitOf reads a Limit; what cannot be read is no limit, validation refuses it.
func limitOf(l *v1alpha1.Limit) (out snapshot.Limit) {
	if l == nil {
		return out
	}
	out.Egress, _ = v1alpha1.ParseRate(l.Egress)
	out.Ingress, _ = v1alpha1.ParseRate(l.Ingress)
	return out
}
