package control

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
)

// namePrefix is where the rows of external names are: one per name, so that all
// processes compile the same.
const namePrefix = "name/"

// codeUnresolved is the Problem of a Service whose external name has no
// address, or none that is still sure.
const codeUnresolved = "MOI2039"

// resolution is what is known of one external name.
type resolution struct {
	// Addresses, sorted; those of the last good answer.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Error says why there is no newer answer.
	Error string `json:"error,omitempty"`
}

func (r resolution) equal(o resolution) bool {
	return slices.Equal(r.Addresses, o.Addresses) && r.Error == o.Error
}

// names is everything that is known of external names. It never changes.
type names struct {
	by   map[string]resolution
	have map[string][]netip.Addr // the same, as the compiler wants it
}

func newNames(by map[string]resolution) *names {
	n := &names{by: by, have: make(map[string][]netip.Addr, len(by))}
	for name, r := range by {
		n.have[name] = r.Addresses
	}
	return n
}

func (n *names) addresses() map[string][]netip.Addr {
	if n == nil {
		return nil
	}
	return n.have
}

// find looks a name up as a Service writes it: so the compiler does, too.
func (n *names) find(name string) (resolution, bool) {
	if n == nil {
		return resolution{}, false
	}
	r, ok := n.by[name]
	return r, ok
}

// unresolved are the Problems of Services whose names cannot be resolved.
func unresolved(in *compile.Input, known *names) []v1alpha1.Problem {
	var out []v1alpha1.Problem
	for _, k := range slices.SortedFunc(keys(in.Services), compareKeys) {
		name := in.Services[k].Spec.ExternalName
		if name == "" {
			continue
		}
		r, asked := known.find(name)
		p := v1alpha1.Problem{Code: codeUnresolved, Object: owner(kindService, k), Field: "spec.externalName"}
		switch {
		case !asked:
			p.Reason, p.Fix, p.Warning = name+" has not been asked for yet", "wait a few seconds", true
		case r.Error != "" && len(r.Addresses) > 0:
			p.Reason, p.Fix, p.Warning = r.Error+"; the addresses of the last answer stay in use", "mend the name or its name server", true
		case r.Error != "":
			p.Reason, p.Fix = r.Error, "correct the name, or mend its name server"
		default:
			continue
		}
		out = append(out, p)
	}
	return out
}

// loadNames reads the rows of all names.
func (k *keeper) loadNames(ctx context.Context) error {
	by, err := loadRows[resolution](ctx, k, namePrefix)
	if err != nil {
		return err
	}
	k.mu.Lock()
	same := k.found != nil && maps.EqualFunc(k.found.by, by, resolution.equal)
	if !same {
		k.found = newNames(by)
	}
	k.mu.Unlock()
	if !same {
		k.wake()
	}
	return nil
}

// resolved is what is known of external names; nil until load succeeded.
func (k *keeper) resolved() *names {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.found
}

// saveNames writes what changed, nil to forget a name, and tells everybody.
func (k *keeper) saveNames(ctx context.Context, changed map[string]*resolution) error {
	if err := saveRows(ctx, k, namePrefix, changed); err != nil {
		return err
	}
	k.mu.Lock()
	by := map[string]resolution{}
	if k.found != nil {
		maps.Copy(by, k.found.by)
	}
	merge(by, changed)
	k.found, k.unsung = newNames(by), true
	k.mu.Unlock()
	k.wake()
	return nil
}

// asked is what the resolver remembers of one name, the fetcher of one URI.
type asked struct {
	next    time.Time // when it is asked again
	backoff time.Duration
	unused  time.Time // since when nobody wants it; zero: somebody does
}
