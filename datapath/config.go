package datapath

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"

	"moire.dev/moire/snapshot"
)

// DefaultConntrackMax is how many sessions a node remembers.
const DefaultConntrackMax = 131072

// Config says which node this is. It is checked before anything is touched.
type Config struct {
	// Node is the name of the node; it is part of the pin path.
	Node string
	// RunDir holds bpf/, where the pins are. Default: /run/moire.
	RunDir string
	// Uplink is the interface to the other nodes. Default: the one that has Address.
	Uplink string
	// Address of this node in the underlay: outer source of what it sends.
	Address netip.Addr
	// ConntrackMax bounds the sessions that are remembered; it takes effect
	// when the tables are made. Default: DefaultConntrackMax.
	ConntrackMax int
	// ControlPorts are TCP ports of a control plane that may run on this
	// machine: the node's own firewall never closes them. Default: 7443, 7444.
	ControlPorts []uint16
	// Log for what an operator should know. Default: none.
	Log *slog.Logger
	// Ephemeral: nothing is pinned, all is gone with the process. For proving.
	Ephemeral bool
}

// Local is one interface that is plugged here.
type Local struct {
	Key   snapshot.AttachmentKey
	VNI   snapshot.VNI
	Addrs []netip.Addr
	MAC   snapshot.MAC
	// Host is the name of the node's end of the veth pair, or of the tap.
	Host string
	// Tap: there is no other end in a namespace.
	Tap bool
	// DHCP: the agent answers DHCP and router solicitations.
	DHCP bool
	// Netns is the path of the namespace with the other end; "" for a tap.
	Netns string
	// Proxy that speaks for it, one of State.Proxies; "": none, and what needs one
	// is refused. A tap has no namespace in which one could.
	Proxy string
	// Gateway: nobody but its Proxy is there, which takes what comes to Ports,
	// sorted; at all others nobody listens.
	Gateway bool
	Ports   []uint16
}

// State is everything that the kernel must be.
type State struct {
	Snapshot *snapshot.Snapshot
	Locals   []Local
	// Presence is the node itself in its Networks, sorted by VNI.
	Presence []Present
	// ControlPorts are TCP ports of the control planes that the node knows, any
	// of which may run on this machine, sorted. They come to Config.ControlPorts.
	ControlPorts []uint16
	// Proxies of the node, sorted by name.
	Proxies []Proxy
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9._]{0,251}[A-Za-z0-9])?$`)

func (c Config) withDefaults() (Config, error) {
	if !nodeName.MatchString(c.Node) {
		return c, fmt.Errorf("datapath: %q is not a node name; use letters, digits, dots and dashes", c.Node)
	}
	if c.RunDir == "" {
		c.RunDir = "/run/moire"
	}
	c.Address = c.Address.Unmap()
	if !c.Address.IsValid() || c.Address.IsUnspecified() || c.Address.IsMulticast() {
		return c, fmt.Errorf("datapath: node %s needs its underlay address, not %q", c.Node, c.Address)
	}
	if c.ConntrackMax <= 0 {
		c.ConntrackMax = DefaultConntrackMax
	}
	if c.ControlPorts == nil {
		c.ControlPorts = []uint16{7443, 7444}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// dir is where the pins of the node are.
func (c Config) dir() string { return filepath.Join(c.RunDir, "bpf", c.Node) }

// overhead is what the VXLAN headers take of a packet.
func (c Config) overhead() int {
	if c.Address.Is4() {
		return 50
	}
	return 70
}
