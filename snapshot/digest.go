package snapshot

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot/policy"
)

// Digest is the content of a Snapshot in a few bytes: for each table the sum of
// the hashes of its rows, so that a change of some rows changes it at the cost
// of those rows. Equal content, equal Digest.
type Digest struct {
	node   string
	tables [tables]sum
	rest   sum
}

// sum of hashes, modulo 2^128.
type sum struct{ high, low uint64 }

func (s *sum) add(o sum) {
	var carry uint64
	s.low, carry = bits.Add64(s.low, o.low, 0)
	s.high, _ = bits.Add64(s.high, o.high, carry)
}

func (s *sum) sub(o sum) {
	var borrow uint64
	s.low, borrow = bits.Sub64(s.low, o.low, 0)
	s.high, _ = bits.Sub64(s.high, o.high, borrow)
}

// tables is how many there are, in the order of Dump.
const tables = 21

// Version is the name of the content: 16 hex digits.
func (d Digest) Version() Version {
	b := append([]byte(d.node), 0)
	for _, t := range append(d.tables[:], d.rest) {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, t.high), t.low)
	}
	h := sha256.Sum256(b)
	return Version(hex.EncodeToString(h[:8]))
}

// Digest looks at every row.
func (s *Snapshot) Digest() Digest {
	return Digest{node: s.Node}.After(&Snapshot{}, &Delta{Put: *s})
}

// After is the Digest of old.Apply(delta), when d is that of old, at the cost
// of the rows of the delta.
func (d Digest) After(old *Snapshot, delta *Delta) Digest {
	if delta.Reset {
		return delta.Put.Digest()
	}
	put, gone := &delta.Put, &delta.Delete
	h := &hasher{}
	d.rest = put.rest()
	change(h, &d.tables[0], 'n', old.Nodes, put.Nodes, gone.Nodes, plain)
	change(h, &d.tables[1], 'w', old.Networks, put.Networks, gone.Networks, plain)
	change(h, &d.tables[2], 'i', old.Identities, put.Identities, gone.Identities, (*hasher).identity)
	change(h, &d.tables[3], 'e', old.Endpoints, put.Endpoints, gone.Endpoints, (*hasher).endpoint)
	change(h, &d.tables[4], 'b', old.Blocks, put.Blocks, gone.Blocks, plain)
	change(h, &d.tables[5], 'g', old.Grants, put.Grants, gone.Grants, plain)
	change(h, &d.tables[6], 'p', old.Policies, put.Policies, gone.Policies, (*hasher).policy)
	change(h, &d.tables[7], 'c', old.Chains, put.Chains, gone.Chains, plain)
	change(h, &d.tables[8], 's', old.Services, put.Services, gone.Services, (*hasher).service)
	change(h, &d.tables[9], 'x', old.Exits, put.Exits, gone.Exits, plain)
	change(h, &d.tables[10], 'm', old.Masquerades, put.Masquerades, gone.Masquerades, plain)
	change(h, &d.tables[11], 'o', old.Externals, put.Externals, gone.Externals, plain)
	change(h, &d.tables[12], 'd', old.Names, put.Names, gone.Names, plain)
	change(h, &d.tables[13], 'k', old.Checks, put.Checks, gone.Checks, plain)
	change(h, &d.tables[14], 'u', old.Captures, put.Captures, gone.Captures, plain)
	change(h, &d.tables[15], 't', old.Trusts, put.Trusts, gone.Trusts, (*hasher).trust)
	change(h, &d.tables[16], 'f', old.Frontends, put.Frontends, gone.Frontends, (*hasher).frontend)
	change(h, &d.tables[17], 'r', old.Routes, put.Routes, gone.Routes, (*hasher).route)
	change(h, &d.tables[18], 'l', old.Clusters, put.Clusters, gone.Clusters, (*hasher).cluster)
	change(h, &d.tables[19], 'j', old.KeySets, put.KeySets, gone.KeySets, (*hasher).keySet)
	change(h, &d.tables[20], 'y', old.Gateways, put.Gateways, gone.Gateways, (*hasher).gateway)
	return d
}

// rest is what is in no table.
func (s *Snapshot) rest() sum {
	h := &hasher{}
	if s.Firewall != nil {
		h.b = fmt.Appendf(h.b, "firewall %+v", *s.Firewall)
	}
	h.flag(s.AcceptMassDelete)
	return h.end()
}

// change takes what goes and what is replaced out of the sum, and puts in what
// comes.
func change[K comparable, V any](h *hasher, s *sum, tag byte, old, put, gone map[K]V, how func(*hasher, K, *V)) {
	var v V // one for all rows: how lets it escape
	take := func(k K) {
		var had bool
		if v, had = old[k]; had {
			s.sub(row(h, tag, k, &v, how))
		}
	}
	for k := range gone {
		take(k)
	}
	for k, now := range put {
		if _, dies := gone[k]; dies {
			continue
		}
		take(k)
		v = now
		s.add(row(h, tag, k, &v, how))
	}
}

func row[K comparable, V any](h *hasher, tag byte, k K, v *V, how func(*hasher, K, *V)) sum {
	h.b = append(h.b[:0], tag)
	how(h, k, v)
	return h.end()
}

// hasher writes one row so that different rows are different bytes.
type hasher struct{ b []byte }

func (h *hasher) end() sum {
	x := sha256.Sum256(h.b)
	return sum{binary.BigEndian.Uint64(x[:8]), binary.BigEndian.Uint64(x[8:16])}
}

// plain is for rows of which there are few. All but those of Policies say their
// key themselves.
func plain[K comparable, V any](h *hasher, _ K, v *V) { h.b = fmt.Appendf(h.b, "%+v", *v) }

func (h *hasher) number(n uint64) { h.b = binary.AppendUvarint(h.b, n) }

func (h *hasher) flag(on bool) {
	if on {
		h.b = append(h.b, 1)
		return
	}
	h.b = append(h.b, 0)
}

func (h *hasher) text(s string) {
	h.number(uint64(len(s)))
	h.b = append(h.b, s...)
}

func (h *hasher) ip(a netip.Addr) {
	b := a.As16()
	h.number(uint64(a.BitLen()))
	if a.IsValid() {
		h.b = append(h.b, b[:]...)
	}
	h.text(a.Zone())
}

func (h *hasher) addr(a Addr) { h.number(uint64(a.VNI)); h.ip(a.IP) }

func (h *hasher) prefix(p netip.Prefix) { h.ip(p.Addr()); h.number(uint64(p.Bits() + 1)) }

func (h *hasher) endpoint(_ Addr, e *Endpoint) {
	h.addr(e.Addr)
	h.text(e.Project)
	h.text(e.Workload)
	h.b = append(h.b, e.MAC[:]...)
	h.number(uint64(e.Identity))
	h.text(e.Node)
	h.addr(e.Home)
	h.number(uint64(e.Chain.VNI))
	h.text(e.Chain.Link)
	h.flag(e.Chain.Reverse)
	h.number(uint64(e.Mode))
}

func (h *hasher) identity(_ policy.Identity, i *Identity) {
	h.number(uint64(i.Number))
	for _, s := range []string{i.Domain, i.Project, i.Account, i.SPIFFE} {
		h.text(s)
	}
	h.number(uint64(len(i.Labels)))
	for _, l := range i.Labels {
		h.text(l.Key)
		h.text(l.Value)
	}
}

func (h *hasher) service(_ ServiceKey, s *Service) {
	h.serviceKey(&s.ServiceKey)
	h.text(s.Project)
	h.text(s.Name)
	h.flag(s.Floating)
	h.text(s.PortName)
	h.text(string(s.App))
	h.texts(s.Names)
	for _, list := range [][]Backend{s.Backends, s.Leaving} {
		h.number(uint64(len(list)))
		for _, b := range list {
			h.addr(b.Addr)
			h.number(uint64(b.Port))
			h.number(uint64(b.Weight))
			h.text(b.Node)
		}
	}
	h.number(uint64(s.Affinity))
}

func (h *hasher) policy(k PolicyKey, s *policy.Set) {
	h.number(uint64(k.VNI))
	h.number(uint64(k.Identity))
	h.number(uint64(k.Direction))
	h.text(string(s.Isolated))
	h.text(string(s.AuditIsolated))
	h.text(string(s.Default.ID))
	h.flag(s.Default.Allow)
	h.number(uint64(len(s.Rules)))
	for i := range s.Rules {
		r := &s.Rules[i]
		h.text(string(r.ID))
		h.number(uint64(r.Tier))
		h.number(uint64(r.Action))
		h.flag(r.Audit)
		h.number(uint64(len(r.Peers)))
		for _, p := range r.Peers {
			h.peer(p)
		}
		h.number(uint64(len(r.Ports)))
		for _, p := range r.Ports {
			h.number(uint64(p.Protocol))
			h.number(uint64(p.First))
			h.number(uint64(p.Last))
		}
		h.number(uint64(len(r.Requests)))
		for i := range r.Requests {
			h.request(&r.Requests[i])
		}
	}
}

func (h *hasher) peer(p policy.Peer) {
	h.flag(p.Anyone)
	h.number(uint64(len(p.Identities)))
	for _, id := range p.Identities {
		h.number(uint64(id))
	}
	h.prefix(p.CIDR)
	h.number(uint64(len(p.Except)))
	for _, e := range p.Except {
		h.prefix(e)
	}
	h.text(p.Name)
}

// SameSet compares two Sets; one that is shared costs nothing.
func SameSet(a, b policy.Set) bool {
	if a.Isolated != b.Isolated || a.AuditIsolated != b.AuditIsolated || a.Default != b.Default || len(a.Rules) != len(b.Rules) {
		return false
	}
	if len(a.Rules) == 0 || &a.Rules[0] == &b.Rules[0] {
		return true
	}
	return slices.EqualFunc(a.Rules, b.Rules, func(x, y policy.Rule) bool {
		return x.ID == y.ID && x.Tier == y.Tier && x.Action == y.Action && x.Audit == y.Audit && slices.Equal(x.Ports, y.Ports) &&
			slices.EqualFunc(x.Requests, y.Requests, deep) &&
			slices.EqualFunc(x.Peers, y.Peers, func(p, q policy.Peer) bool {
				return p.Anyone == q.Anyone && p.CIDR == q.CIDR && p.Name == q.Name && slices.Equal(p.Identities, q.Identities) && slices.Equal(p.Except, q.Except)
			})
	})
}

// SameService compares two Services.
func SameService(a, b Service) bool {
	return a.ServiceKey == b.ServiceKey && a.Project == b.Project && a.Name == b.Name && a.Floating == b.Floating && a.PortName == b.PortName && a.App == b.App &&
		a.Affinity == b.Affinity && slices.Equal(a.Names, b.Names) && slices.Equal(a.Backends, b.Backends) && slices.Equal(a.Leaving, b.Leaving)
}

func sameIdentity(a, b Identity) bool {
	return a.Number == b.Number && a.Domain == b.Domain && a.Project == b.Project && a.Account == b.Account && a.SPIFFE == b.SPIFFE && slices.Equal(a.Labels, b.Labels)
}
