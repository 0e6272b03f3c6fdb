package snapshot

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// Delta is what changes one Snapshot into another.
type Delta struct {
	// Reset: Put is everything; whatever else there was is gone.
	Reset bool
	// Version after the change.
	Version Version
	// Put holds the rows that are new or different; its Firewall and
	// AcceptMassDelete are always those of the new Snapshot.
	Put Snapshot
	// Changed: Firewall or AcceptMassDelete are different.
	Changed bool
	// Delete holds the keys that are gone; only map keys count.
	Delete Snapshot
}

// Diff returns the smallest Delta from old to new. A nil old gives a Reset.
func Diff(old, new *Snapshot) Delta { return DiffTo(old, new, new.Version()) }

// DiffTo is Diff for who knows the Version of new.
func DiffTo(old, new *Snapshot, version Version) Delta {
	d := Delta{Version: version, Put: Snapshot{Node: new.Node}, Delete: Snapshot{Node: new.Node}}
	if old == nil {
		d.Reset, d.Put = true, *new
		return d
	}
	d.Put.Nodes, d.Delete.Nodes = diff(old.Nodes, new.Nodes, same[Node])
	d.Put.Networks, d.Delete.Networks = diff(old.Networks, new.Networks, deep[Network])
	d.Put.Identities, d.Delete.Identities = diff(old.Identities, new.Identities, sameIdentity)
	d.Put.Endpoints, d.Delete.Endpoints = diff(old.Endpoints, new.Endpoints, same[Endpoint])
	d.Put.Blocks, d.Delete.Blocks = diff(old.Blocks, new.Blocks, deep[Block])
	d.Put.Grants, d.Delete.Grants = diff(old.Grants, new.Grants, deep[Grant])
	d.Put.Policies, d.Delete.Policies = diff(old.Policies, new.Policies, SameSet)
	d.Put.Chains, d.Delete.Chains = diff(old.Chains, new.Chains, deep[Chain])
	d.Put.Services, d.Delete.Services = diff(old.Services, new.Services, SameService)
	d.Put.Exits, d.Delete.Exits = diff(old.Exits, new.Exits, deep[Exit])
	d.Put.Masquerades, d.Delete.Masquerades = diff(old.Masquerades, new.Masquerades, same[Masquerade])
	d.Put.Externals, d.Delete.Externals = diff(old.Externals, new.Externals, same[External])
	d.Put.Names, d.Delete.Names = diff(old.Names, new.Names, deep[DNS])
	d.Put.Checks, d.Delete.Checks = diff(old.Checks, new.Checks, same[Check])
	d.Put.Captures, d.Delete.Captures = diff(old.Captures, new.Captures, deep[Capture])
	d.Put.Trusts, d.Delete.Trusts = diff(old.Trusts, new.Trusts, deep[Trust])
	d.Put.Frontends, d.Delete.Frontends = diff(old.Frontends, new.Frontends, deep[Frontend])
	d.Put.Routes, d.Delete.Routes = diff(old.Routes, new.Routes, deep[l7.Route])
	d.Put.Clusters, d.Delete.Clusters = diff(old.Clusters, new.Clusters, deep[Cluster])
	d.Put.Gateways, d.Delete.Gateways = diff(old.Gateways, new.Gateways, deep[Gateway])
	d.Put.KeySets, d.Delete.KeySets = diff(old.KeySets, new.KeySets, same[l7.KeySet])
	d.Put.Firewall, d.Put.AcceptMassDelete = new.Firewall, new.AcceptMassDelete
	d.Changed = !reflect.DeepEqual(old.Firewall, new.Firewall) || old.AcceptMassDelete != new.AcceptMassDelete
	return d
}

func same[V comparable](a, b V) bool { return a == b }

func deep[V any](a, b V) bool { return reflect.DeepEqual(a, b) }

func diff[K comparable, V any](old, new map[K]V, equal func(a, b V) bool) (put, del map[K]V) {
	if reflect.ValueOf(old).Pointer() == reflect.ValueOf(new).Pointer() {
		return nil, nil // the same table; snapshots share what did not change
	}
	for k, v := range new {
		if o, ok := old[k]; !ok || !equal(o, v) {
			if put == nil {
				put = map[K]V{}
			}
			put[k] = v
		}
	}
	for k, v := range old {
		if _, ok := new[k]; !ok {
			if del == nil {
				del = map[K]V{}
			}
			del[k] = v
		}
	}
	return put, del
}

// Apply returns the Snapshot that the Delta makes of s, which stays as it is.
// s may be nil when the Delta is a Reset.
func (s *Snapshot) Apply(d *Delta) *Snapshot {
	if d.Reset {
		out := d.Put
		return &out
	}
	return &Snapshot{
		Node:        s.Node,
		Nodes:       apply(s.Nodes, d.Put.Nodes, d.Delete.Nodes),
		Networks:    apply(s.Networks, d.Put.Networks, d.Delete.Networks),
		Identities:  apply(s.Identities, d.Put.Identities, d.Delete.Identities),
		Endpoints:   apply(s.Endpoints, d.Put.Endpoints, d.Delete.Endpoints),
		Blocks:      apply(s.Blocks, d.Put.Blocks, d.Delete.Blocks),
		Grants:      apply(s.Grants, d.Put.Grants, d.Delete.Grants),
		Policies:    apply(s.Policies, d.Put.Policies, d.Delete.Policies),
		Chains:      apply(s.Chains, d.Put.Chains, d.Delete.Chains),
		Services:    apply(s.Services, d.Put.Services, d.Delete.Services),
		Exits:       apply(s.Exits, d.Put.Exits, d.Delete.Exits),
		Masquerades: apply(s.Masquerades, d.Put.Masquerades, d.Delete.Masquerades),
		Externals:   apply(s.Externals, d.Put.Externals, d.Delete.Externals),
		Names:       apply(s.Names, d.Put.Names, d.Delete.Names),
		Checks:      apply(s.Checks, d.Put.Checks, d.Delete.Checks),
		Captures:    apply(s.Captures, d.Put.Captures, d.Delete.Captures),
		Trusts:      apply(s.Trusts, d.Put.Trusts, d.Delete.Trusts),
		Frontends:   apply(s.Frontends, d.Put.Frontends, d.Delete.Frontends),
		Routes:      apply(s.Routes, d.Put.Routes, d.Delete.Routes),
		Clusters:    apply(s.Clusters, d.Put.Clusters, d.Delete.Clusters),
		Gateways:    apply(s.Gateways, d.Put.Gateways, d.Delete.Gateways),
		KeySets:     apply(s.KeySets, d.Put.KeySets, d.Delete.KeySets),
		Firewall:    d.Put.Firewall, AcceptMassDelete: d.Put.AcceptMassDelete,
	}
}

func apply[K comparable, V any](old, put, del map[K]V) map[K]V {
	if len(put) == 0 && len(del) == 0 {
		return old
	}
	out := make(map[K]V, len(old)+len(put))
	maps.Copy(out, old)
	maps.Copy(out, put)
	for k := range del {
		delete(out, k)
	}
	return out
}

// Empty reports whether the Delta changes nothing.
func (d *Delta) Empty() bool {
	return !d.Reset && !d.Changed && d.Put.rows() == 0 && d.Delete.rows() == 0
}

// rows counts all rows.
func (s *Snapshot) rows() int {
	return len(s.Nodes) + len(s.Networks) + len(s.Identities) + len(s.Endpoints) + len(s.Blocks) + len(s.Grants) + len(s.Policies) +
		len(s.Chains) + len(s.Services) + len(s.Exits) + len(s.Masquerades) + len(s.Externals) + len(s.Names) + len(s.Checks) + len(s.Captures) +
		len(s.Trusts) + len(s.Frontends) + len(s.Routes) + len(s.Clusters) + len(s.KeySets) + len(s.Gateways)
}

// IdentityOf finds the identity of the given project, account and labels.
func (s *Snapshot) IdentityOf(project, account string, labels []Label) (policy.Identity, bool) {
	numbers := slices.SortedFunc(maps.Keys(s.Identities), cmp.Compare[policy.Identity])
	for _, n := range numbers {
		i := s.Identities[n]
		if i.Project == project && i.Account == account && slices.Equal(i.Labels, labels) {
			return n, true
		}
	}
	return 0, false
}
