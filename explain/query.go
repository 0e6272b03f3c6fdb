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
	// address inside a Network. To may also be a Service or a FloatingIP
	// ("project/name"; "service project/name" or "floatingip project/name"
	// where a Workload has the same name), a name that the name service of the
	// Network answers, a DNS name outside, or an address outside. From may be an
	// address outside when To is a FloatingIP of an external pool.
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
	// Name is the DNS name for which the Workload was told the address To. Empty:
	// To itself when that is a name, else none.
	Name string
	// Request, when set, is what is asked about instead of packets.
	Request *Request `json:",omitempty"`
	// Sees says whether who asks may know of the project; nil: of all. What
	// is not seen is treated as if it were not there, but for the Policies that
	// decide about what is. What is not seen and linked with what is seen has an
	// address and a verdict, and nothing else.
	Sees func(project string) bool `json:"-"`
	// Origin says from which file and line a rule comes; "" when unknown. May
	// be nil.
	Origin func(policy.RuleID) (file string, line int) `json:"-"`
}

// protocols by their names in a Query.
var protocols = map[string]uint8{"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP, "icmp": policy.ICMP}

// Kinds that an end may be said to be.
const (
	anyKind      = ""
	workloadKind = "workload"
	serviceKind  = "service"
	floatingKind = "floatingip"
)

// end is a parsed From or To.
type end struct {
	kind          string // anyKind: whatever has the name
	project, name string
	addr          netip.Addr
	// dns is a name with dots that is perhaps no project's.
	dns string
}

func (e end) String() string {
	switch {
	case e.addr.IsValid():
		return e.addr.String()
	case e.dns != "":
		return e.dns
	}
	return e.project + "/" + e.name
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
	case from.kind == serviceKind || from.kind == floatingKind:
		err = fmt.Errorf("a %s sends nothing; name a Workload or an address as the source", from.kind)
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
	var e end
	for word, kind := range map[string]string{"workload ": workloadKind, "service ": serviceKind, "svc ": serviceKind, "floatingip ": floatingKind, "fip ": floatingKind} {
		if rest, ok := strings.CutPrefix(s, word); ok {
			e.kind, s = kind, strings.TrimSpace(rest)
			break
		}
	}
	var ok bool
	if e.project, e.name, ok = strings.Cut(s, "/"); !ok {
		e.project, e.name = q.Project, s
		if e.kind == anyKind && what == "to" && strings.Contains(strings.TrimSuffix(s, "."), ".") {
			e.dns = strings.ToLower(strings.TrimSuffix(s, "."))
			return e, nil
		}
	}
	if e.project == "" || e.name == "" || strings.ContainsAny(e.name, "/ ") {
		return end{}, fmt.Errorf("%q is no Workload and no address; write project/workload", s)
	}
	return e, nil
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
