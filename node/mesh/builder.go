package mesh

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// Input is what the Config of one proxy is made of.
type Input struct {
	// Name of the proxy.
	Name string
	// Snapshot in force, with addresses in the place of names. Never changed.
	Snapshot *snapshot.Snapshot
	// Interfaces that the proxy speaks for, sorted by Key. Those that the Snapshot
	// does not know are left out.
	Interfaces []Interface
	// Certificates by SPIFFE ID, of the identities that have one now.
	Certificates map[string]Certificate
	// Records is where the proxy sends request records to.
	Records string
	// Workers of the proxy; 0: one for each core.
	Workers int
	// Mark of its connections to applications: l7.Mesh.Mark.
	Mark uint32
}

// Interface is one that needs a proxy.
type Interface struct {
	Key   snapshot.AttachmentKey
	VNI   snapshot.VNI
	Addrs []netip.Addr
	// Namespace under which its sockets are handed over.
	Namespace string
	// Gateway: nobody but the proxy is there.
	Gateway bool
}

// Certificate is an SVID, PEM.
type Certificate struct{ Chain, Key string }

// Builder makes the Config of one proxy again and again. The zero Builder is
// ready. It remembers only to be cheap: every Config depends on its Input alone.
type Builder struct {
	last   Input
	config *l7.Config
}

// Build returns the Config for an Input; the one of last time when it is the
// same.
func (b *Builder) Build(in Input) *l7.Config {
	was, d := b.config, newDifference(&b.last, &in)
	if was == nil {
		was, d = &l7.Config{Mesh: &l7.Mesh{}}, difference{}
	}
	m, old := *was.Mesh, was.Mesh
	next := &l7.Config{Name: in.Name, Workers: in.Workers, Telemetry: l7.Telemetry{Records: in.Records}, Mesh: &m,
		Listeners: was.Listeners, Routes: was.Routes, Clusters: was.Clusters, Certificates: was.Certificates}
	m.Node, m.Mark = in.Snapshot.Node, in.Mark
	w := newWorld(&in)
	if !d.workloads {
		m.Workloads = keep(old.Workloads, w.workloads())
	}
	if !d.peers {
		m.Peers = keep(old.Peers, w.peers())
	}
	if !d.trusts {
		m.Trusts = keep(old.Trusts, trusts(in.Snapshot))
	}
	if !d.keys {
		m.KeySets = keep(old.KeySets, sorted(in.Snapshot.KeySets, func(k l7.KeySet) l7.KeySet { return k }))
	}
	if !d.services {
		s := w.services()
		next.Listeners, next.Routes, next.Clusters = keep(was.Listeners, s.listeners), keep(was.Routes, s.routes), keep(was.Clusters, s.clusters)
	}
	if !d.certificates || !d.workloads {
		next.Certificates = keep(was.Certificates, w.certificates(m.Workloads))
	}
	b.last = in
	if !sameConfig(b.config, next) {
		b.config = next
	}
	return b.config
}

// difference says which parts of the Config cannot have changed, because all
// that they are made of is the same.
type difference struct{ workloads, peers, trusts, keys, services, certificates bool }

func newDifference(was, now *Input) (d difference) {
	a, b := was.Snapshot, now.Snapshot
	if a == nil {
		return d
	}
	interfaces := reflect.DeepEqual(was.Interfaces, now.Interfaces)
	who := interfaces && same(a.Endpoints, b.Endpoints) && same(a.Identities, b.Identities) && same(a.Networks, b.Networks)
	d.certificates = reflect.DeepEqual(was.Certificates, now.Certificates)
	gateways := same(a.Gateways, b.Gateways)
	d.workloads = who && gateways && d.certificates && same(a.Policies, b.Policies) && same(a.Services, b.Services)
	d.peers = who
	d.services = who && gateways && maps.Equal(a.Nodes, b.Nodes) && same(a.Policies, b.Policies) && same(a.Services, b.Services) && same(a.Frontends, b.Frontends) && same(a.Routes, b.Routes) && same(a.Clusters, b.Clusters)
	d.trusts, d.keys = same(a.Trusts, b.Trusts), same(a.KeySets, b.KeySets)
	return d
}

// same: it is the very same table; snapshots share what did not change.
func same[K comparable, V any](a, b map[K]V) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

// keep is the old slice when the new one has nothing else in it.
func keep[T any](old, now []T) []T {
	if len(old) == len(now) && reflect.DeepEqual(old, now) {
		return old
	}
	return now
}

// sameConfig: every part is the very same, or equal and small.
func sameConfig(a, b *l7.Config) bool {
	if a == nil || a.Name != b.Name || a.Workers != b.Workers || a.Telemetry != b.Telemetry || a.Mesh.Node != b.Mesh.Node || a.Mesh.Mark != b.Mesh.Mark {
		return false
	}
	return shared(a.Listeners, b.Listeners) && shared(a.Routes, b.Routes) && shared(a.Clusters, b.Clusters) && shared(a.Certificates, b.Certificates) &&
		shared(a.Mesh.Workloads, b.Mesh.Workloads) && shared(a.Mesh.Peers, b.Mesh.Peers) && shared(a.Mesh.Trusts, b.Mesh.Trusts) && shared(a.Mesh.KeySets, b.Mesh.KeySets)
}

func shared[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// sorted lists what f makes of the values of a table, by key.
func sorted[K cmp.Ordered, V, T any](table map[K]V, f func(V) T) []T {
	var out []T
	for _, k := range sortedKeys(table) {
		out = append(out, f(table[k]))
	}
	return out
}

func sortedKeys[K cmp.Ordered, V any](table map[K]V) []K {
	keys := make([]K, 0, len(table))
	for k := range table {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// View names the Listeners of the Workloads of one project in one Network.
func View(vni snapshot.VNI, project string) string {
	return strconv.FormatUint(uint64(vni), 10) + "/" + project
}
