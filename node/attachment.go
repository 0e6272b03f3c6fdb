package node

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"moire.dev/moire/datapath"
	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// stage is how far an attachment has come.
type stage string

// The stages, in order.
const (
	pending   stage = "pending"   // reported, waits for its Grant
	addressed stage = "addressed" // has addresses and a MAC, the interface is to be made
	plugged   stage = "plugged"   // the interface is there
	ready     stage = "ready"     // policy for it is in force
	leaving   stage = "leaving"   // to be taken away
)

// attachment is one interface of one Workload on this node. Only the loop
// touches it.
type attachment struct {
	Key     snapshot.AttachmentKey
	Account string
	Labels  []snapshot.Label // sorted by key
	Netns   string           // path
	IfName  string
	Host    string
	Default datapath.DefaultRoute
	// Tap is a device on the node: no Netns, and IfName is Host.
	Tap bool
	// DHCP: the Workload asks for its addresses.
	DHCP         bool
	Owner, Group uint32 // of the Tap
	// PID is the process whose end detaches, Born its start time in clock
	// ticks since boot, so that a later process of the same number is not
	// taken for it. 0: none.
	PID     int
	Born    uint64
	Persist bool
	// Gateway: we made the namespace, and nobody but the proxy is there.
	Gateway bool
	Since   time.Time
	// Answered: the attacher was told that it is done. What was never answered
	// is undone when the agent starts.
	Answered bool

	VNI    snapshot.VNI
	Addrs  []netip.Addr // sorted
	Static bool         // Addrs are what the Grant says
	MAC    snapshot.MAC
	// Linked are the prefixes that it has routes to because of Links, without
	// those behind the Chains that it is a Hop of.
	Linked []netip.Prefix
	HopOf  []snapshot.ChainKey

	// Not on disk.
	stage stage
	why   string // what it waits for, or what failed last
	// retry is when to try again what failed.
	retry time.Time
	// inode of the namespace that it was last plugged into.
	inode uint64
	// spiffe is who it was last said to be, and meshed whether it is in the mesh.
	spiffe string
	meshed bool
	// unfollow stops to watch the process; nil: none is watched.
	unfollow context.CancelFunc
}

// here: the interface is in place.
func (a *attachment) here() bool { return a.stage == plugged || a.stage == ready }

// report is what the control plane hears.
func (a *attachment) report() snapshot.Attachment {
	return snapshot.Attachment{
		AttachmentKey: a.Key, Account: a.Account, Labels: a.Labels,
		Addresses: a.Addrs, MAC: a.MAC, VNI: a.VNI, Since: a.Since, Tap: a.Tap,
	}
}

func (a *attachment) local() Local {
	return Local{Key: a.Key, VNI: a.VNI, Addrs: a.Addrs, MAC: a.MAC, Host: a.Host, Netns: a.Netns, Tap: a.Tap, DHCP: a.DHCP, Default: a.Default, Gateway: a.Gateway}
}

// plug is the interface as it must be in the Network.
func (a *attachment) plug(n snapshot.Network, linked []netip.Prefix) plug {
	p := plug{
		Key: a.Key, Host: a.Host, Netns: a.Netns, IfName: a.IfName, MAC: a.MAC, Addrs: a.Addrs,
		Prefixes: n.Prefixes, Linked: linked, MTU: n.MTU, Default: a.Default, DHCP: a.DHCP, Tap: a.Tap, Owner: a.Owner, Group: a.Group,
	}
	if a.Tap {
		p.IfName = ""
	}
	return p
}

// inFull is project/network.
func inFull(k snapshot.AttachmentKey) string {
	project, name := k.InNetwork()
	return project + "/" + name
}

// describe is what people see.
func (a *attachment) describe(inside local.Interface) local.Attachment {
	labels := make(map[string]string, len(a.Labels))
	for _, l := range a.Labels {
		labels[l.Key] = l.Value
	}
	return local.Attachment{
		Interface: inside,
		Project:   a.Key.Project, Workload: a.Key.Workload, Account: a.Account, Labels: labels,
		Netns: a.Netns, Host: a.Host, Tap: a.Tap, DHCP: a.DHCP, PID: a.PID, Persist: a.Persist, Since: a.Since,
		State: string(a.stage), Why: a.why,
	}
}

// inside is the interface as the Workload sees it, but for where names are
// answered; n may be the zero Network. mtu is of the interface, in bytes.
func (a *attachment) inside(n snapshot.Network, mtu int) local.Interface {
	i := local.Interface{
		Network: a.Key.Network, IfName: a.IfName, VNI: uint32(a.VNI), MAC: a.MAC.String(), MTU: mtu,
		Addresses: slices.Clone(a.Addrs), Prefixes: slices.Clone(n.Prefixes), Gateways: gateways(n),
	}
	if i.Addresses == nil {
		i.Addresses = []netip.Addr{}
	}
	return i
}

// gateways is the first host address of the first prefix of each family.
func gateways(n snapshot.Network) []netip.Addr {
	var out []netip.Addr
	var has4, has6 bool
	for _, p := range n.Prefixes {
		seen := &has6
		if p.Addr().Is4() {
			seen = &has4
		}
		if !*seen {
			*seen = true
			out = append(out, p.Masked().Addr().Next())
		}
	}
	return out
}

// claims sorts labels by key.
func claims(labels map[string]string) []snapshot.Label {
	out := make([]snapshot.Label, 0, len(labels))
	for k, v := range labels {
		out = append(out, snapshot.Label{Key: k, Value: v})
	}
	slices.SortFunc(out, func(a, b snapshot.Label) int { return cmp.Compare(a.Key, b.Key) })
	return out
}
