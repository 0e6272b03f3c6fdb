package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"moire.dev/moire/snapshot/policy"
)

// Query asks about one packet.
type Query struct {
	// From and To are "project/workload", "workload" (in Project), or an
	// address inside a Network.
	From, To string
	// Project of a From or To that names none.
	Project string
	// Network, "project/network" or "network", picks one when both ends share
	// several, and says where an address is. Empty: found out.
	Network string
	// Protocol is tcp, udp, sctp or icmp. Empty: tcp.
	Protocol string
	// Port is the destination port; icmp has none.
	Port uint16
	// IPv6 picks the IPv6 addresses of Workloads that have both families.
	IPv6 bool
	// Sees says whether who asks may know of the project; nil: of all. What
	// is not seen is treated as if it were not there, but for the Policies that
	// decide about what is.
	Sees func(project string) bool `json:"-"`
	// Origin says from which file and line a rule comes; "" when unknown. May
	// be nil.
	Origin func(policy.RuleID) (file string, line int) `json:"-"`
}

// protocols by their names in a Query.
var protocols = map[string]uint8{"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP, "icmp": policy.ICMP}

// end is a parsed From or To.
type end struct {
	project, workload string
	addr              netip.Addr
}

func (e end) String() string {
	if e.addr.IsValid() {
		return e.addr.String()
	}
	return e.project + "/" + e.workload
}

func (q *Query) parse() (from, to end, protocol uint8, err error) {
	if from, err = q.end(q.From, "from"); err != nil {
		return
	}
	if to, err = q.end(q.To, "to"); err != nil {
		return
	}
	name := strings.ToLower(q.Protocol)
	if name == "" {
		name = "tcp"
	}
	protocol, ok := protocols[name]
	switch {
	case !ok:
		err = fmt.Errorf("%q is no protocol; choose tcp, udp, sctp or icmp", q.Protocol)
	case protocol == policy.ICMP && q.Port != 0:
		err = fmt.Errorf("icmp has no ports; leave the port out")
	case protocol != policy.ICMP && q.Port == 0:
		err = fmt.Errorf("%s needs a port from 1 to 65535", name)
	}
	return
}

func (q *Query) end(s, what string) (end, error) {
	if s == "" {
		return end{}, fmt.Errorf("nothing says where the packet goes %s; name a Workload as project/workload, or an address", what)
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return end{addr: a.Unmap().WithZone("")}, nil
	}
	project, workload, ok := strings.Cut(s, "/")
	if !ok {
		project, workload = q.Project, s
	}
	if project == "" || workload == "" || strings.Contains(workload, "/") {
		return end{}, fmt.Errorf("%q is no Workload and no address; write project/workload", s)
	}
	return end{project: project, workload: workload}, nil
}

// network splits Query.Network; both parts are empty when it is.
func (q *Query) network(project string) (string, string) {
	if q.Network == "" {
		return "", ""
	}
	if p, n, ok := strings.Cut(q.Network, "/"); ok {
		return p, n
	}
	return project, q.Network
}
