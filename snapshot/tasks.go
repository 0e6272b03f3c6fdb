package snapshot

import (
	"net/netip"
	"time"
)

// DNS is the configuration of a Network's name service. Names themselves
// follow from Endpoints and Services: <name>.<project>.<zone>, where an address
// has the name in every Network that it can be reached from, and only there.
type DNS struct {
	VNI    VNI
	Zone   string
	Search []string
	TTL    time.Duration
	// Order of addresses: random, fixed or round-robin.
	Order   string
	Records []DNSRecord
	// Delegations: the longest zone wins.
	Delegations []Delegation
	// Forward: where every other name is asked; none: what the node uses.
	Forward   []netip.AddrPort
	NoForward bool
	// Metadata is the URL behind the metadata address; "": none.
	Metadata string
}

// DNSRecord is one record of the tenant's own; Name is absolute, lower case,
// with a full stop at the end.
type DNSRecord struct {
	Name string
	Type string
	Data string
	TTL  time.Duration
}

// Delegation sends the names of a zone to servers of its own.
type Delegation struct {
	Zone    string
	Servers []netip.AddrPort
}

// Firewall of the node itself.
type Firewall struct {
	// Audit counts only.
	Audit bool
	// AcceptLockOut: that no rule allows SSH is meant.
	AcceptLockOut bool
	Allow         []FirewallRule
}

// FirewallRule allows ports from sources; none means every.
type FirewallRule struct {
	Name  string
	From  []netip.Prefix
	Ports []HostPort
}

// Capture asks the node to tell of packets as they pass.
type Capture struct {
	ID string
	// Trace asks for the hops of matching packets (Hops) instead of their bytes.
	Trace bool
	// Probe, with Trace, is a packet that the node of its source sends, once;
	// the zero Probe: none.
	Probe Probe
	// VNIs that may be seen: never others, whatever the filter says.
	VNIs []VNI
	// What has to match; zero values match everything.
	Workload string // <project>/<name>, at either end
	A, B     netip.Addr
	Protocol uint8
	Port     uint16 // at either end
	Verdict  string // allow or deny
	Rule     string // id of the deciding rule, or the drop reason
	// Bounds.
	Until   time.Time
	Packets int // all together
	Length  int // bytes kept of each packet; a node keeps at most 2048
}

// Probe is one packet, made by the node of Source as if the Workload sent it.
type Probe struct {
	Source, Destination Addr
	Protocol            uint8
	SourcePort, Port    uint16
}

// Captured is one packet, or one hop of a traced one.
type Captured struct {
	Capture string
	Time    time.Time
	Node    string
	// Where: from-workload, to-workload, to-node, from-node, to-outside,
	// from-outside, drop.
	Where string
	VNI   VNI
	// Interface is project/workload/network at from- and to-workload.
	Interface string
	Verdict   string
	Rule      string
	Reason    string
	// Length of the whole frame; Data is its beginning (Capture), or the
	// addresses and ports of the packet in words (Trace).
	Length int
	Data   []byte
	Text   string
}
