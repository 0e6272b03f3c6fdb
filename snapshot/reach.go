package snapshot

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// Outside is the network id of what is outside of all Networks: the underlay
// and everything behind it. No Network is ever given this number.
const Outside VNI = 0xffffff

// NameServer and its IPv6 twin answer names in every Network; Metadata is where
// Workloads ask for metadata. The node serves them: see Services of the node in
// datapath/DESIGN.md.
var (
	NameServer4 = netip.MustParseAddr("169.254.169.253")
	NameServer6 = netip.MustParseAddr("fd00:4d4f:4952:45::53")
	Metadata4   = netip.MustParseAddr("169.254.169.254")
)

// StaysInside reports that an address means something else on every host or
// link, or nobody: this host, loopback, link-local, multicast, reserved. Nothing
// that a tenant writes makes a node ask there: it would ask itself.
func StaysInside(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return b[0] == 0 || b[0] == 127 || b[0] >= 224 || b[0] == 169 && b[1] == 254
	}
	b := a.As16()
	return b[0] == 0 || b[0] == 0xff || b[0] == 0xfe && b[1]&0xc0 == 0x80
}

// ChainKey names the functions in front of the addresses of a linked Network,
// as Workloads of one Network come to them.
type ChainKey struct {
	VNI VNI
	// Link is <project>/<name>.
	Link string
	// Reverse: on the way from the second end of the Link to the first.
	Reverse bool
}

// Chain is the next function of a Link's chain, seen from one Network: what
// goes to an Endpoint with this Chain goes to one of the Hops instead. A flow
// takes the same instance in both directions: the choice depends on the
// addresses and ports, whichever way round, and a reply goes back to the
// instance that the request came from.
type Chain struct {
	ChainKey
	// Function is its name in the Link.
	Function string
	// Transparent: frames keep the MAC addresses of the ends.
	Transparent bool
	// Hops are the healthy instances, sorted by project and Workload; none: closed.
	Hops []Hop
}

// Hop is the interface of one function instance in the Network of its Chain.
type Hop struct {
	Project  string
	Workload string
	// Addr of the interface in the Network.
	Addr Addr
	MAC  MAC
	Node string
}

// ServiceKey is what a Service answers to.
type ServiceKey struct {
	Addr Addr
	// Protocol and Port; both 0: everything (1:1).
	Protocol uint8
	Port     uint16
}

// Service spreads new sessions to an address over backends. One port of a
// Service object or of a FloatingIP.
//
// A backend of the same Network is chosen, and the destination exchanged for
// it, on the caller's node. A backend of another Network (FloatingIP) is chosen
// on the caller's node, too, but the packet travels as the caller sent it, and
// the backend's node exchanges the destination, choosing among its own.
type Service struct {
	ServiceKey
	Project string
	Name    string
	// Floating: it is a FloatingIP.
	Floating bool
	// PortName of the Service port, for SRV records.
	PortName string
	// App is what its backends speak: AutoHTTP, HTTP1, HTTP2 or TCP; "": not said,
	// which is TCP unless a route is attached.
	App l7.Protocol
	// Names are further DNS names of a FloatingIP, absolute.
	Names []string
	// Backends, sorted by Addr and Port. Only those that this node may choose:
	// healthy and, where locality is preferred, near.
	Backends []Backend
	// Leaving backends get no new session; those they have go on. What is in
	// neither list is gone: UDP sessions to it end.
	Leaving []Backend
	// Affinity keeps a client address on a backend for that long after its
	// last new session; 0: not.
	Affinity time.Duration
}

// Backend is one place behind a Service.
type Backend struct {
	// Addr where it is; VNI Outside never: an address outside is named in the
	// Network of the Service, and leaves it like every other.
	Addr Addr
	// Port, 0: the port stays.
	Port   uint16
	Weight uint32
	// Node that has it; "" when it is no Endpoint.
	Node string
}

// Masquerade says under which address outside the sessions of one Endpoint
// leave: the FloatingIP that is 1:1 with it.
type Masquerade struct {
	Addr Addr
	As   netip.Addr
	// Node that holds As.
	Node string
}

// External is an address of the underlay that a node holds for us: an egress
// address of a Network or a FloatingIP.
type External struct {
	Address netip.Addr
	// Node that answers for it.
	Node string
	// Owner is "Network project/name" or "FloatingIP project/name".
	Owner string
}

// Exit says how a Network reaches what is outside.
type Exit struct {
	VNI VNI
	// Gateway is the node that translates; "": each node by itself.
	Gateway string
	// Addresses that become the source, at most one of each family; none: the
	// node's own.
	Addresses []netip.Addr
	// Hosts are ports of the nodes themselves that may be reached.
	Hosts []HostPort
}

// HostPort is a range of ports of a node.
type HostPort struct {
	Protocol    uint8
	First, Last uint16
}

// Limit is a rate in bits per second, as seen by the Workload; 0: none.
type Limit struct{ Egress, Ingress uint64 }

// CheckKey names one thing whose health is checked.
type CheckKey struct {
	Addr Addr
	// Kind is icmp, tcp, http or grpc (grpc.health.v1).
	Kind string
	Port uint16
	// TLS: http and grpc are spoken in TLS, whatever the certificate.
	TLS bool
	// Path, Host (empty: the address) and Statuses are of http. Statuses that are
	// well, with commas; empty: 200 to 399.
	Path, Host, Statuses string
	// Service of grpc; empty: the whole server.
	Service string
}

// String is what is asked, in one line.
func (k CheckKey) String() string {
	scheme := k.Kind
	if k.TLS {
		scheme += " by TLS"
	}
	return strings.Join(slices.DeleteFunc([]string{k.Addr.String(), scheme, strconv.Itoa(int(k.Port)), k.Path, k.Host, k.Statuses, k.Service},
		func(s string) bool { return s == "" }), " ")
}

// Check is a health check that this node does, from inside the Network.
type Check struct {
	CheckKey
	Interval, Timeout   time.Duration
	Failures, Successes int
}

// Health is the state of one Check.
type Health struct {
	CheckKey
	Healthy bool
	Since   time.Time
	// Error of the last failure.
	Error string
}

// Compare orders by network, Link and direction.
func (k ChainKey) Compare(o ChainKey) int {
	return cmp.Or(cmp.Compare(k.VNI, o.VNI), cmp.Compare(k.Link, o.Link), compareBool(k.Reverse, o.Reverse))
}

// Compare orders by address, protocol and port.
func (k ServiceKey) Compare(o ServiceKey) int {
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Protocol, o.Protocol), cmp.Compare(k.Port, o.Port))
}

// Compare orders by address, kind, port, path, and what else is asked.
func (k CheckKey) Compare(o CheckKey) int {
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Kind, o.Kind), cmp.Compare(k.Port, o.Port), cmp.Compare(k.Path, o.Path),
		cmp.Compare(k.Host, o.Host), cmp.Compare(k.Statuses, o.Statuses), cmp.Compare(k.Service, o.Service), compareBool(k.TLS, o.TLS))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
