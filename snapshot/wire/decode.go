package wire

import (
	"cmp"
	"fmt"
	"net/netip"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// ToSnapshot checks the rows and makes the snapshot of the node of them.
func ToSnapshot(node string, in []*Row) (*snapshot.Snapshot, error) {
	out := &snapshot.Snapshot{Node: node}
	if err := addRows(out, "row", in, false); err != nil {
		return nil, err
	}
	return out, nil
}

// addRows checks rows and puts them into the snapshot; what names the list in
// errors. With keysOnly all other fields are left alone.
func addRows(out *snapshot.Snapshot, what string, in []*Row, keysOnly bool) error {
	for i, r := range in {
		c := check{row: fmt.Sprintf("%s %d", what, i)}
		addRow(out, &c, r, keysOnly)
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

func addRow(out *snapshot.Snapshot, c *check, r *Row, keysOnly bool) {
	switch r := r.GetRow().(type) {
	case *Row_Node:
		add(c, &out.Nodes, "node", r.Node, (*check).nodeKey, (*check).node, keysOnly)
	case *Row_Network:
		add(c, &out.Networks, "network", r.Network, (*check).networkKey, (*check).network, keysOnly)
	case *Row_Identity:
		add(c, &out.Identities, "identity", r.Identity, (*check).identityKey, (*check).identity, keysOnly)
	case *Row_Endpoint:
		add(c, &out.Endpoints, "endpoint", r.Endpoint, (*check).endpointKey, (*check).endpoint, keysOnly)
	case *Row_Block:
		add(c, &out.Blocks, "block", r.Block, (*check).blockKey, (*check).block, keysOnly)
	case *Row_Grant:
		add(c, &out.Grants, "grant", r.Grant, (*check).grantKey, (*check).grant, keysOnly)
	case *Row_Policy:
		add(c, &out.Policies, "policy", r.Policy, (*check).policyKey, (*check).set, keysOnly)
	case *Row_Chain:
		add(c, &out.Chains, "chain", r.Chain, (*check).chainKey, (*check).chain, keysOnly)
	case *Row_Service:
		add(c, &out.Services, "service", r.Service, (*check).serviceKey, (*check).service, keysOnly)
	case *Row_Exit:
		add(c, &out.Exits, "exit", r.Exit, (*check).exitKey, (*check).exit, keysOnly)
	case *Row_Masquerade:
		add(c, &out.Masquerades, "masquerade", r.Masquerade, (*check).masqueradeKey, (*check).masquerade, keysOnly)
	case *Row_External:
		add(c, &out.Externals, "external", r.External, (*check).externalKey, (*check).external, keysOnly)
	case *Row_Names:
		add(c, &out.Names, "names", r.Names, (*check).namesKey, (*check).names, keysOnly)
	case *Row_Check:
		add(c, &out.Checks, "check", r.Check, (*check).checkKey, (*check).check, keysOnly)
	case *Row_Capture:
		add(c, &out.Captures, "capture", r.Capture, (*check).captureKey, (*check).capture, keysOnly)
	case *Row_Trust:
		add(c, &out.Trusts, "trust", r.Trust, (*check).trustKey, (*check).trust, keysOnly)
	case *Row_Frontend:
		add(c, &out.Frontends, "frontend", r.Frontend, (*check).frontendKey, (*check).frontend, keysOnly)
	case *Row_Route:
		add(c, &out.Routes, "route", r.Route, (*check).routeKey, (*check).route, keysOnly)
	case *Row_Cluster:
		add(c, &out.Clusters, "cluster", r.Cluster, (*check).clusterKey, (*check).cluster, keysOnly)
	case *Row_KeySet:
		add(c, &out.KeySets, "key set", r.KeySet, (*check).keySetKey, (*check).keySet, keysOnly)
	case *Row_Gateway:
		add(c, &out.Gateways, "gateway", r.Gateway, (*check).gatewayKey, (*check).gateway, keysOnly)
	case *Row_Own:
		c.own(out, r.Own)
	default:
		c.err = fmt.Errorf("%s: of no known kind; the other side may be newer than this one", c.row)
	}
}

// add checks one row and puts it into its table, where its key must be free.
func add[K comparable, V, M any](c *check, out *map[K]V, name string, in M, key func(*check, M) K, value func(*check, M) V, keysOnly bool) {
	at := c.row
	c.row = at + " (" + name + ")"
	k := key(c, in)
	c.row = fmt.Sprintf("%s (%s %v)", at, name, k)
	var v V
	if !keysOnly && c.err == nil {
		v = value(c, in)
	}
	if c.err != nil {
		return
	}
	if _, ok := (*out)[k]; ok {
		c.err = fmt.Errorf("%s: there is a row with the same key before it", c.row)
		return
	}
	if *out == nil {
		*out = map[K]V{}
	}
	(*out)[k] = v
}

func (c *check) nodeKey(in *Node) string { return c.name("name", in.GetName()) }

func (c *check) node(in *Node) snapshot.Node {
	return snapshot.Node{
		Name:     in.GetName(),
		Address:  c.addr("address", in.GetAddress()),
		Number:   c.uint16("number", in.GetNumber()),
		External: in.GetExternal(),
		Zone:     c.text("zone", in.GetZone(), maxName),
	}
}

func (c *check) networkKey(in *Network) snapshot.VNI { return c.vni("vni", in.GetVni()) }

func (c *check) network(in *Network) snapshot.Network {
	out := snapshot.Network{
		VNI:      snapshot.VNI(in.GetVni()),
		Project:  c.name("project", in.GetProject()),
		Name:     c.name("name", in.GetName()),
		Domain:   c.text("domain", in.GetDomain(), maxName),
		Prefixes: c.prefixes("prefixes", in.GetPrefixes(), true),
		Deny:     in.GetDeny(),
		Limit:    c.limit(in.GetLimit()),
	}
	ascending(c, "prefixes", out.Prefixes, comparePrefix)
	if in.GetMtu() > maxMTU {
		c.failf("mtu", "%d is larger than %d", in.GetMtu(), maxMTU)
		return out
	}
	out.MTU = int(in.GetMtu())
	return out
}

func (c *check) identityKey(in *Identity) policy.Identity {
	if in.GetNumber() == 0 {
		c.failf("number", "0 is nobody")
	}
	return policy.Identity(in.GetNumber())
}

func (c *check) identity(in *Identity) snapshot.Identity {
	return snapshot.Identity{
		Number:  policy.Identity(in.GetNumber()),
		Domain:  c.text("domain", in.GetDomain(), maxName),
		Project: c.name("project", in.GetProject()),
		Account: c.text("account", in.GetAccount(), maxName),
		SPIFFE:  c.text("spiffe", in.GetSpiffe(), maxSPIFFE),
		Labels:  c.labels("labels", in.GetLabels()),
	}
}

func (c *check) endpointKey(in *Endpoint) snapshot.Addr {
	return snapshot.Addr{VNI: c.vni("vni", in.GetVni()), IP: c.addr("address", in.GetAddress())}
}

func (c *check) endpoint(in *Endpoint) snapshot.Endpoint {
	return snapshot.Endpoint{
		Addr:     c.endpointKey(in),
		Project:  c.name("project", in.GetProject()),
		Workload: c.name("workload", in.GetWorkload()),
		MAC:      c.mac("mac", in.GetMac()),
		Identity: policy.Identity(in.GetIdentity()),
		Node:     c.name("node", in.GetNode()),
		Home:     c.home("home", in.GetHome()),
		Chain:    c.chainOf("chain", in.GetChain()),
		Mode:     c.mode("mode", in.GetMode()),
	}
}

func (c *check) blockKey(in *Block) snapshot.BlockKey {
	return snapshot.BlockKey{VNI: c.vni("vni", in.GetVni()), CIDR: c.prefix("cidr", in.GetCidr(), true)}
}

func (c *check) block(in *Block) snapshot.Block {
	out := snapshot.Block{BlockKey: c.blockKey(in)}
	if !c.count("excluded", len(in.GetExcluded()), maxItems) {
		return out
	}
	for _, r := range in.GetExcluded() {
		out.Excluded = append(out.Excluded, c.interval("excluded", r, out.CIDR.Addr()))
	}
	for i := 1; i < len(out.Excluded); i++ {
		if out.Excluded[i].First.Less(out.Excluded[i-1].First) {
			c.failf("excluded", "entry %d does not come after the one before it", i)
			break
		}
	}
	return out
}

// interval must be of the family of like; its ends may be addresses that no
// host can have, as network and broadcast address are.
func (c *check) interval(field string, in *Range, like netip.Addr) snapshot.Range {
	first, ok1 := netip.AddrFromSlice(in.GetFirst())
	last, ok2 := netip.AddrFromSlice(in.GetLast())
	switch {
	case !ok1 || !ok2:
		c.failf(field, "addresses of %d and %d bytes; want 4 or 16", len(in.GetFirst()), len(in.GetLast()))
	case first.BitLen() != like.BitLen() || last.BitLen() != like.BitLen():
		c.failf(field, "%s to %s is of another address family than its block", first, last)
	case last.Less(first):
		c.failf(field, "%s to %s is no range", first, last)
	}
	return snapshot.Range{First: first, Last: last}
}

func (c *check) grantKey(in *Grant) snapshot.AttachmentKey {
	return snapshot.AttachmentKey{
		Project:  c.name("project", in.GetProject()),
		Workload: c.name("workload", in.GetWorkload()),
		Network:  c.name("network", in.GetNetwork()),
	}
}

func (c *check) grant(in *Grant) snapshot.Grant {
	out := snapshot.Grant{AttachmentKey: c.grantKey(in), Error: c.lines("error", in.GetError())}
	if out.Error != "" {
		if in.GetVni() != 0 || in.GetIdentity() != 0 || len(in.GetAddresses()) > 0 || len(in.GetMac()) > 0 {
			c.failf("error", "set, but so are fields of an attachment that is allowed")
		}
		return out
	}
	out.VNI = c.vni("vni", in.GetVni())
	out.Identity = policy.Identity(in.GetIdentity())
	out.Addresses = c.addrs("addresses", in.GetAddresses())
	out.MAC = c.mac("mac", in.GetMac())
	out.Limit = c.limit(in.GetLimit())
	return out
}

// count of all rows.
func count(s *snapshot.Snapshot) int {
	return len(s.Nodes) + len(s.Networks) + len(s.Identities) + len(s.Endpoints) + len(s.Blocks) + len(s.Grants) + len(s.Policies) +
		len(s.Chains) + len(s.Services) + len(s.Exits) + len(s.Masquerades) + len(s.Externals) + len(s.Names) + len(s.Checks) + len(s.Captures) +
		len(s.Trusts) + len(s.Frontends) + len(s.Routes) + len(s.Clusters) + len(s.KeySets) + len(s.Gateways)
}

// overlap finds a key that is in both.
func overlap(a, b *snapshot.Snapshot) error {
	return cmp.Or(
		shared("node", a.Nodes, b.Nodes),
		shared("network", a.Networks, b.Networks),
		shared("identity", a.Identities, b.Identities),
		shared("endpoint", a.Endpoints, b.Endpoints),
		shared("block", a.Blocks, b.Blocks),
		shared("grant", a.Grants, b.Grants),
		shared("policy", a.Policies, b.Policies),
		shared("chain", a.Chains, b.Chains),
		shared("service", a.Services, b.Services),
		shared("exit", a.Exits, b.Exits),
		shared("masquerade", a.Masquerades, b.Masquerades),
		shared("external", a.Externals, b.Externals),
		shared("names", a.Names, b.Names),
		shared("check", a.Checks, b.Checks),
		shared("capture", a.Captures, b.Captures),
		shared("trust", a.Trusts, b.Trusts),
		shared("frontend", a.Frontends, b.Frontends),
		shared("route", a.Routes, b.Routes),
		shared("cluster", a.Clusters, b.Clusters),
		shared("key set", a.KeySets, b.KeySets),
		shared("gateway", a.Gateways, b.Gateways),
	)
}

func shared[K comparable, V any](name string, a, b map[K]V) error {
	for k := range a {
		if _, ok := b[k]; ok {
			return fmt.Errorf("%s %v is both put and deleted", name, k)
		}
	}
	return nil
}
