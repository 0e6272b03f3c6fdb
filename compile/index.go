package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// who is one allocated identity of a project.
type who struct {
	key    IdentityKey
	row    snapshot.Identity
	labels labels.Set
}

func newWho(k IdentityKey, row snapshot.Identity) *who {
	w := &who{key: k, row: row, labels: make(labels.Set, len(row.Labels))}
	for _, l := range row.Labels {
		w.labels[l.Key] = l.Value
	}
	return w
}

// project is what the Networks of one project share. It is never changed
// after index made it, so that equal pointers mean equal facts.
type project struct {
	name, domain, trust string
	// mode of its Workloads that say none.
	mode        snapshot.Mode
	authorizers []v1alpha1.Authorizer // of the Domain
	// missing says why nothing in the project is connected; empty: all is well.
	missing string
	// who, sorted by number, and by key.
	who     []*who
	numbers map[IdentityKey]policy.Identity
	rows    []snapshot.Identity // of Snapshot.Identities
	// policies that may hold for its Workloads, in the order in which they are
	// asked: admin, project, baseline.
	policies []*v1alpha1.Policy
	index    *index
}

func (p *project) equal(o *project) bool {
	return o != nil && p.name == o.name && p.missing == o.missing && p.mode == o.mode && slices.Equal(p.authorizers, o.authorizers) && p.sameWho(o) && slices.Equal(p.policies, o.policies)
}

// sameWho: the same identities with the same names.
func (p *project) sameWho(o *project) bool {
	return p.domain == o.domain && p.trust == o.trust &&
		slices.EqualFunc(p.who, o.who, func(a, b *who) bool { return a.row.Number == b.row.Number && a.key == b.key })
}

// located is one reported attachment with where it is and what is declared.
type located struct {
	node string
	*snapshot.Attachment
	declared *v1alpha1.Workload
	// foreign: it has an address that was not given to it: neither out of a
	// block of its node, nor by name. It follows from the rest of the facts.
	foreign bool
}

func (a located) equal(b located) bool {
	return a.node == b.node && a.declared == b.declared && sameAttachment(a.Attachment, b.Attachment)
}

func sameAttachment(a, b *snapshot.Attachment) bool {
	return a == b || a.AttachmentKey == b.AttachmentKey && a.Account == b.Account && a.MAC == b.MAC && a.VNI == b.VNI && a.Tap == b.Tap &&
		a.Since.Equal(b.Since) && slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Addresses, b.Addresses)
}

func sameBlock(a, b snapshot.Block) bool {
	return a.BlockKey == b.BlockKey && slices.Equal(a.Excluded, b.Excluded)
}

// host is what a Network needs to know of a node.
type host struct {
	name, zone                 string
	exists, external, numbered bool
	// echo is what the node says of its blocks of the Network.
	echo []snapshot.Block
}

func (h host) equal(o host) bool {
	return h.name == o.name && h.zone == o.zone && h.exists == o.exists && h.external == o.external && h.numbered == o.numbered &&
		slices.EqualFunc(h.echo, o.echo, sameBlock)
}

// facts are everything that the result of one Network depends on.
type facts struct {
	key     Key
	network *v1alpha1.Network // nil: something refers to it, but it does not exist
	// twin is another Network with the same VNI, which then counts.
	twin    string
	project *project
	// guests are other projects with Workloads in the Network, sorted by name.
	guests      []*project
	workloads   []*v1alpha1.Workload // that list the Network, sorted by name
	attachments []located            // sorted by since, node and key
	hosts       []host               // sorted by name
	services    []*v1alpha1.Service  // that list the Network, sorted by name
	floats      []poolClaim          // FloatingIPs of this pool, sorted by key
	// taken are addresses of the underlay that are somebody's, for an external
	// pool; sorted. elder are those that an older external Network gives away.
	taken []netip.Addr
	elder ranges
}

// poolClaim is a FloatingIP with the reason why the pool refuses it.
type poolClaim struct {
	*v1alpha1.FloatingIP
	refused string
}

func (f *facts) equal(o *facts) bool {
	return o != nil && f.network == o.network && f.twin == o.twin && f.project == o.project &&
		slices.Equal(f.guests, o.guests) && slices.Equal(f.workloads, o.workloads) && slices.EqualFunc(f.attachments, o.attachments, located.equal) &&
		slices.EqualFunc(f.hosts, o.hosts, host.equal) && slices.Equal(f.services, o.services) && slices.Equal(f.floats, o.floats) && slices.Equal(f.taken, o.taken) && slices.Equal(f.elder, o.elder)
}

func (f *facts) host(name string) host {
	if i, ok := slices.BinarySearchFunc(f.hosts, name, func(h host, n string) int { return cmp.Compare(h.name, n) }); ok {
		return f.hosts[i]
	}
	return host{name: name}
}

func (f *facts) sort() {
	slices.SortFunc(f.workloads, func(a, b *v1alpha1.Workload) int {
		return cmp.Or(-boolOrder(a.Namespace == f.key.Project, b.Namespace == f.key.Project), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	f.workloads = slices.Compact(f.workloads)
	slices.SortFunc(f.services, func(a, b *v1alpha1.Service) int { return cmp.Compare(a.Name, b.Name) })
	f.services = slices.Compact(f.services)
	slices.SortFunc(f.floats, func(a, b poolClaim) int { return compareKeys(Key{a.Namespace, a.Name}, Key{b.Namespace, b.Name}) })
	// Since is what a node says. Whoever says "before you" comes first only
	// among those who have what was given to them.
	given := f.given()
	for i := range f.attachments {
		a := &f.attachments[i]
		a.foreign = slices.ContainsFunc(a.Addresses, func(ip netip.Addr) bool { return !given(a, ip) })
	}
	slices.SortFunc(f.attachments, func(a, b located) int {
		if a.foreign != b.foreign {
			if b.foreign {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.node, b.node), a.AttachmentKey.Compare(b.AttachmentKey))
	})
}

// given tells whether an attachment was given an address: out of a block of its
// node, or by name because it is declared, and not bound to another node.
func (f *facts) given() func(a *located, ip netip.Addr) bool {
	blocks := map[string][]netip.Prefix{}
	if f.network != nil {
		for _, b := range f.network.Status.Blocks {
			if p, err := netip.ParsePrefix(b.CIDR); err == nil {
				blocks[b.Node] = append(blocks[b.Node], p)
			}
		}
	}
	return func(a *located, ip netip.Addr) bool {
		if slices.ContainsFunc(blocks[a.node], func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return true
		}
		w := a.declared
		if w == nil || w.Spec.Node != "" && w.Spec.Node != a.node {
			return false
		}
		i := interfaceOf(w, f.key)
		return i >= 0 && slices.ContainsFunc(w.Spec.Interfaces[i].Addresses, func(text string) bool {
			named, err := netip.ParseAddr(text)
			return err == nil && named == ip
		})
	}
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
}

// comparePolicies is the order in which Policies are asked: by tier; in admin
// and baseline moire-system first, then priority; then project and name.
func comparePolicies(a, b *v1alpha1.Policy) int {
	ta, tb := tierOf(a), tierOf(b)
	if ta != tb {
		return cmp.Compare(ta, tb)
	}
	if ta != policy.Project {
		sa, sb := a.Namespace == v1alpha1.SystemNamespace, b.Namespace == v1alpha1.SystemNamespace
		if sa != sb {
			if sa {
				return -1
			}
			return 1
		}
		if c := cmp.Compare(a.Spec.Priority, b.Spec.Priority); c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func tierOf(p *v1alpha1.Policy) policy.Tier {
	switch p.Spec.Tier {
	case v1alpha1.TierAdmin:
		return policy.Admin
	case v1alpha1.TierBaseline:
		return policy.Baseline
	}
	return policy.Project
}

// nodeRows are the rows of Snapshot.Nodes of every known node.
func nodeRows(in *Input) map[string]snapshot.Node {
	out := make(map[string]snapshot.Node, len(in.Nodes))
	for name, n := range in.Nodes {
		addr, err := netip.ParseAddr(n.Spec.Address)
		if err != nil {
			if r := in.Reports[name]; r != nil {
				addr = r.Address
			}
		}
		out[name] = snapshot.Node{Name: name, Address: addr, Number: in.NodeNumbers[name], External: n.Spec.External, Zone: n.Spec.Zone}
	}
	return out
}

// sortedNames lists the keys of a map in order.
func sortedNames[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
