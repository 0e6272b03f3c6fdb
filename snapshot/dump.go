package snapshot

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/snapshot/policy"
)

// Dump writes every row in a fixed order, one line each: what people read and
// what tests compare.
func (s *Snapshot) Dump(w io.Writer) {
	fmt.Fprintf(w, "snapshot node=%s\n", s.Node)
	dump(w, "node", s.Nodes, cmp.Compare[string])
	dump(w, "network", s.Networks, cmp.Compare[VNI])
	dump(w, "identity", s.Identities, cmp.Compare[policy.Identity])
	dump(w, "endpoint", s.Endpoints, Addr.Compare)
	dump(w, "block", s.Blocks, BlockKey.Compare)
	dump(w, "grant", s.Grants, AttachmentKey.Compare)
	dump(w, "policy", s.Policies, PolicyKey.Compare)
	dump(w, "chain", s.Chains, ChainKey.Compare)
	dump(w, "service", s.Services, ServiceKey.Compare)
	dump(w, "exit", s.Exits, cmp.Compare[VNI])
	dump(w, "masquerade", s.Masquerades, Addr.Compare)
	dump(w, "external", s.Externals, netip.Addr.Compare)
	dump(w, "names", s.Names, cmp.Compare[VNI])
	dump(w, "check", s.Checks, CheckKey.Compare)
	dump(w, "capture", s.Captures, cmp.Compare[string])
	dump(w, "trust", s.Trusts, cmp.Compare[string])
	dump(w, "frontend", s.Frontends, FrontendKey.Compare)
	dumpWith(w, "route", s.Routes, cmp.Compare[string], routeText)
	dumpWith(w, "cluster", s.Clusters, cmp.Compare[string], clusterText)
	dump(w, "keys", s.KeySets, cmp.Compare[string])
	dump(w, "gateway", s.Gateways, GatewayKey.Compare)
	if s.Firewall != nil {
		fmt.Fprintf(w, "firewall %+v\n", *s.Firewall)
	}
	if s.AcceptMassDelete {
		fmt.Fprintln(w, "accept mass-delete")
	}
}

func dump[K comparable, V any](w io.Writer, table string, rows map[K]V, order func(a, b K) int) {
	dumpWith(w, table, rows, order, func(v V) string { return fmt.Sprintf("%+v", v) })
}

func dumpWith[K comparable, V any](w io.Writer, table string, rows map[K]V, order func(a, b K) int, text func(V) string) {
	for _, k := range slices.SortedFunc(maps.Keys(rows), order) {
		fmt.Fprintf(w, "%s %s\n", table, text(rows[k]))
	}
}

// Version names the content: 16 hex digits. Who knows the Digest of a Snapshot
// before has that of the next cheaper, see Digest.After.
func (s *Snapshot) Version() Version { return s.Digest().Version() }

// Compare orders by network, then address.
func (a Addr) Compare(b Addr) int {
	return cmp.Or(cmp.Compare(a.VNI, b.VNI), a.IP.Compare(b.IP))
}

// String is <vni>/<address>.
func (a Addr) String() string { return fmt.Sprintf("%d/%s", a.VNI, a.IP) }

// Compare orders by network, address and length.
func (k BlockKey) Compare(o BlockKey) int {
	return cmp.Or(cmp.Compare(k.VNI, o.VNI), k.CIDR.Addr().Compare(o.CIDR.Addr()), cmp.Compare(k.CIDR.Bits(), o.CIDR.Bits()))
}

// Compare orders by project, Workload and Network.
func (k AttachmentKey) Compare(o AttachmentKey) int {
	return cmp.Or(cmp.Compare(k.Project, o.Project), cmp.Compare(k.Workload, o.Workload), cmp.Compare(k.Network, o.Network))
}

// Compare orders by network, identity and direction.
func (k PolicyKey) Compare(o PolicyKey) int {
	return cmp.Or(cmp.Compare(k.VNI, o.VNI), cmp.Compare(k.Identity, o.Identity), cmp.Compare(k.Direction, o.Direction))
}

// String is six colon-separated hex pairs.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// ParseMAC reads six colon-separated hex pairs.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	pairs := strings.Split(s, ":")
	for i, p := range pairs {
		b, err := hex.DecodeString(p)
		if err != nil || len(b) != 1 || len(pairs) != len(m) {
			return MAC{}, fmt.Errorf("%q is not a MAC address; write it as 02:00:00:00:00:01", s)
		}
		m[i] = b[0]
	}
	return m, nil
}
