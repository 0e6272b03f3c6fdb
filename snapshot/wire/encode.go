package wire

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// FromSnapshot returns every row in the order of Dump. It fails when a row is
// stored under a key that is not its own.
func FromSnapshot(s *snapshot.Snapshot) ([]*Row, error) {
	var out []*Row
	for r, err := range rows(s, false) {
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// rows yields every row in a fixed order, or only the keys; an error ends it.
func rows(s *snapshot.Snapshot, keysOnly bool) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		ok := table(yield, keysOnly, "node", s.Nodes, cmp.Compare[string], nodeRow) &&
			table(yield, keysOnly, "network", s.Networks, cmp.Compare[snapshot.VNI], networkRow) &&
			table(yield, keysOnly, "identity", s.Identities, cmp.Compare[policy.Identity], identityRow) &&
			table(yield, keysOnly, "endpoint", s.Endpoints, snapshot.Addr.Compare, endpointRow) &&
			table(yield, keysOnly, "block", s.Blocks, snapshot.BlockKey.Compare, blockRow) &&
			table(yield, keysOnly, "grant", s.Grants, snapshot.AttachmentKey.Compare, grantRow) &&
			table(yield, keysOnly, "policy", s.Policies, snapshot.PolicyKey.Compare, policyRow) &&
			table(yield, keysOnly, "chain", s.Chains, snapshot.ChainKey.Compare, chainRow) &&
			table(yield, keysOnly, "service", s.Services, snapshot.ServiceKey.Compare, serviceRow) &&
			table(yield, keysOnly, "exit", s.Exits, cmp.Compare[snapshot.VNI], exitRow) &&
			table(yield, keysOnly, "masquerade", s.Masquerades, snapshot.Addr.Compare, masqueradeRow) &&
			table(yield, keysOnly, "external", s.Externals, netip.Addr.Compare, externalRow) &&
			table(yield, keysOnly, "names", s.Names, cmp.Compare[snapshot.VNI], namesRow) &&
			table(yield, keysOnly, "check", s.Checks, snapshot.CheckKey.Compare, checkRow) &&
			table(yield, keysOnly, "capture", s.Captures, cmp.Compare[string], captureRow) &&
			meshRows(yield, s, keysOnly)
		if own := ownRow(s); ok && own != nil && !keysOnly {
			yield(own, nil)
		}
	}
}

// table yields the rows of one table. make gets the key, and the value unless
// only keys are wanted, and returns the row and the key that the value has.
func table[K comparable, V any](yield func(*Row, error) bool, keysOnly bool, name string, in map[K]V, order func(a, b K) int, make func(K, *V) (*Row, K)) bool {
	for _, k := range slices.SortedFunc(maps.Keys(in), order) {
		var value *V
		if !keysOnly {
			v := in[k]
			value = &v
		}
		row, own := make(k, value)
		if own != k {
			yield(nil, fmt.Errorf("%s %v is stored under the key %v", name, own, k))
			return false
		}
		if !yield(row, nil) {
			return false
		}
	}
	return true
}

func nodeRow(k string, v *snapshot.Node) (*Row, string) {
	out := &Node{Name: k}
	if v != nil {
		out.Address, out.Number, out.External, out.Zone = v.Address.AsSlice(), uint32(v.Number), v.External, v.Zone
		k = v.Name
	}
	return &Row{Row: &Row_Node{out}}, k
}

func networkRow(k snapshot.VNI, v *snapshot.Network) (*Row, snapshot.VNI) {
	out := &Network{Vni: uint32(k)}
	if v != nil {
		out.Project, out.Name, out.Domain = v.Project, v.Name, v.Domain
		out.Prefixes, out.Mtu, out.Deny = fromPrefixes(v.Prefixes), uint32(v.MTU), v.Deny
		out.Limit = fromLimit(v.Limit)
		k = v.VNI
	}
	return &Row{Row: &Row_Network{out}}, k
}

func identityRow(k policy.Identity, v *snapshot.Identity) (*Row, policy.Identity) {
	out := &Identity{Number: uint32(k)}
	if v != nil {
		out.Domain, out.Project, out.Account, out.Spiffe = v.Domain, v.Project, v.Account, v.SPIFFE
		out.Labels = fromLabels(v.Labels)
		k = v.Number
	}
	return &Row{Row: &Row_Identity{out}}, k
}

func endpointRow(k snapshot.Addr, v *snapshot.Endpoint) (*Row, snapshot.Addr) {
	out := &Endpoint{Vni: uint32(k.VNI), Address: k.IP.AsSlice()}
	if v != nil {
		out.Project, out.Workload, out.Node = v.Project, v.Workload, v.Node
		out.Mac, out.Identity = fromMAC(v.MAC), uint32(v.Identity)
		out.Home, out.Chain = fromAddr(v.Home), fromChainKey(v.Chain)
		out.Mode = uint32(v.Mode)
		k = v.Addr
	}
	return &Row{Row: &Row_Endpoint{out}}, k
}

func blockRow(k snapshot.BlockKey, v *snapshot.Block) (*Row, snapshot.BlockKey) {
	out := &Block{Vni: uint32(k.VNI), Cidr: fromPrefix(k.CIDR)}
	if v != nil {
		out = fromBlock(v)
		k = v.BlockKey
	}
	return &Row{Row: &Row_Block{out}}, k
}

func fromBlock(v *snapshot.Block) *Block {
	out := &Block{Vni: uint32(v.VNI), Cidr: fromPrefix(v.CIDR)}
	for _, r := range v.Excluded {
		out.Excluded = append(out.Excluded, &Range{First: r.First.AsSlice(), Last: r.Last.AsSlice()})
	}
	return out
}

func grantRow(k snapshot.AttachmentKey, v *snapshot.Grant) (*Row, snapshot.AttachmentKey) {
	out := &Grant{Project: k.Project, Workload: k.Workload, Network: k.Network}
	if v != nil {
		out.Error, out.Vni, out.Identity = v.Error, uint32(v.VNI), uint32(v.Identity)
		out.Addresses, out.Mac, out.Limit = fromAddrs(v.Addresses), fromMAC(v.MAC), fromLimit(v.Limit)
		k = v.AttachmentKey
	}
	return &Row{Row: &Row_Grant{out}}, k
}

func fromPrefix(p netip.Prefix) *Prefix {
	if !p.IsValid() {
		return nil
	}
	return &Prefix{Address: p.Addr().AsSlice(), Bits: uint32(p.Bits())}
}

func fromPrefixes(in []netip.Prefix) []*Prefix {
	var out []*Prefix
	for _, p := range in {
		out = append(out, fromPrefix(p))
	}
	return out
}

func fromAddrs(in []netip.Addr) [][]byte {
	var out [][]byte
	for _, a := range in {
		out = append(out, a.AsSlice())
	}
	return out
}

func fromMAC(m snapshot.MAC) []byte {
	if m == (snapshot.MAC{}) {
		return nil
	}
	return m[:]
}

func fromLabels(in []snapshot.Label) []*Label {
	var out []*Label
	for _, l := range in {
		out = append(out, &Label{Key: l.Key, Value: l.Value})
	}
	return out
}
