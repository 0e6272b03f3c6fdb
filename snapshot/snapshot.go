package snapshot

import (
	"net/netip"
	"strings"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// VNI is the network id: 24 bits, the VXLAN network identifier on the wire.
type VNI uint32

// Version names the content of a Snapshot: equal content, equal Version.
type Version string

// Addr is an address inside a Network. Nothing is keyed by address alone.
type Addr struct {
	VNI VNI
	IP  netip.Addr
}

// MAC is an Ethernet address.
type MAC [6]byte

// RouterMAC is the address that answers for the gateway of every Network.
var RouterMAC = MAC{0x02, 0x4d, 0x4f, 0x49, 0x52, 0x45}

// Snapshot is everything that one node must be. Never change one after it was
// handed out; build another.
type Snapshot struct {
	// Node is the name of the node that this is for.
	Node string
	// Nodes that the endpoints below sit on, this one included.
	Nodes map[string]Node
	// Networks that the node hosts or may reach.
	Networks map[VNI]Network
	// Identities by number, also some that were used until a moment ago.
	Identities map[policy.Identity]Identity
	// Endpoints: where each address of each Network is.
	Endpoints map[Addr]Endpoint
	// Blocks that this node holds.
	Blocks map[BlockKey]Block
	// Grants answer the attachments that this node reported.
	Grants map[AttachmentKey]Grant
	// Policies of the endpoints on this node. A local endpoint without its
	// two sets is closed.
	Policies map[PolicyKey]policy.Set
	// Chains in front of linked addresses.
	Chains map[ChainKey]Chain
	// Services and FloatingIPs of Networks that the node hosts, and those whose
	// backends are here.
	Services map[ServiceKey]Service
	// Exits of Networks that may leave.
	Exits map[VNI]Exit
	// Masquerades of Endpoints that have a FloatingIP of an external pool.
	Masquerades map[Addr]Masquerade
	// Externals that this node or the exits of its Networks use.
	Externals map[netip.Addr]External
	// Names: the name service of each Network here.
	Names map[VNI]DNS
	// Checks that this node does.
	Checks map[CheckKey]Check
	// Captures that go on, by id.
	Captures map[string]Capture
	// Firewall of the node; nil: off.
	Firewall *Firewall
	// Trusts by name: of the Domains here, and those that they federate with.
	Trusts map[string]Trust
	// Frontends: Services that callers here reach by their proxy.
	Frontends map[FrontendKey]Frontend
	// Routes of the Frontends and Gateways, by name.
	Routes map[string]l7.Route
	// Clusters that Frontends and Routes name, by name.
	Clusters map[string]Cluster
	// Gateways that this node runs.
	Gateways map[GatewayKey]Gateway
	// KeySets of JWT issuers that Policies here name, by URI.
	KeySets map[string]l7.KeySet
	// AcceptMassDelete: this may remove more than MassDelete of what was there.
	AcceptMassDelete bool
}

// Node is one VXLAN endpoint of the underlay.
type Node struct {
	Name    string
	Address netip.Addr
	// Number is the 16-bit node number, the middle of the MACs it gives out.
	Number   uint16
	External bool
	// Zone that it is in; "": not said.
	Zone string
}

// Network is one virtual network.
type Network struct {
	VNI     VNI
	Project string
	Name    string
	Domain  string
	// Prefixes, sorted.
	Prefixes []netip.Prefix
	// MTU wanted in bytes; 0 means what the underlay allows.
	MTU int
	// Deny: the default inside the Network is deny.
	Deny bool
	// Limit of all local Workloads together.
	Limit Limit
}

// Identity is who a Workload is.
type Identity struct {
	Number  policy.Identity
	Domain  string
	Project string
	Account string
	// SPIFFE is spiffe://<trust domain>/ns/<project>/sa/<account>.
	SPIFFE string
	// Labels, sorted by key.
	Labels []Label
}

// Label is one key and value.
type Label struct{ Key, Value string }

// Endpoint is one address of one Workload.
type Endpoint struct {
	Addr     Addr
	Project  string
	Workload string
	MAC      MAC
	Identity policy.Identity
	// Node that hosts it.
	Node string
	// Home is where it really is, when Addr is how a linked Network sees it.
	// The zero Home: at Addr. What the other side then sees as source is the
	// address whose Endpoint in Home's Network has the sender's Addr as Home.
	Home Addr
	// Chain, of Addr's Network, that stands in front; the zero Chain: none.
	Chain ChainKey
	// Mode of the Workload.
	Mode Mode
}

// Real is where the Endpoint is: Home, or Addr.
func (e *Endpoint) Real() Addr {
	if e.Home.IP.IsValid() {
		return e.Home
	}
	return e.Addr
}

// BlockKey names an address block.
type BlockKey struct {
	VNI  VNI
	CIDR netip.Prefix
}

// Block is a range of addresses that this node may give out on its own.
type Block struct {
	BlockKey
	// Excluded ranges of the block are never given out dynamically, sorted.
	Excluded []Range
}

// Range is a closed interval of addresses.
type Range struct{ First, Last netip.Addr }

// AttachmentKey names one interface: a Workload has at most one per Network.
type AttachmentKey struct {
	Project  string
	Workload string
	// Network of Project, or "project/network" of another one.
	Network string
}

// InNetwork is the project and the name of the Network.
func (k AttachmentKey) InNetwork() (project, name string) {
	if project, name, other := strings.Cut(k.Network, "/"); other {
		return project, name
	}
	return k.Project, k.Network
}

// Grant answers one attachment that the node reported: how it may be, or why
// it may not.
type Grant struct {
	AttachmentKey
	// Error, when not empty, refuses the attachment; everything else is unset.
	Error string
	VNI   VNI
	// Identity of the attachment; 0 while it is not allocated yet.
	Identity policy.Identity
	// Addresses that it must have, sorted; empty: dynamic from Blocks.
	Addresses []netip.Addr
	// MAC that it must have; zero: the node chooses.
	MAC MAC
	// Limit of the interface.
	Limit Limit
}

// PolicyKey says whose policy set it is.
type PolicyKey struct {
	VNI       VNI
	Identity  policy.Identity
	Direction policy.Direction
}
