package wire

import (
	"net/netip"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

func fromAddr(a snapshot.Addr) *Addr {
	if a == (snapshot.Addr{}) {
		return nil
	}
	return &Addr{Vni: uint32(a.VNI), Address: a.IP.AsSlice()}
}

func fromChainKey(k snapshot.ChainKey) *ChainKey {
	if k == (snapshot.ChainKey{}) {
		return nil
	}
	return &ChainKey{Vni: uint32(k.VNI), Link: k.Link, Reverse: k.Reverse}
}

func fromLimit(l snapshot.Limit) *Limit {
	if l == (snapshot.Limit{}) {
		return nil
	}
	return &Limit{Egress: l.Egress, Ingress: l.Ingress}
}

func chainRow(k snapshot.ChainKey, v *snapshot.Chain) (*Row, snapshot.ChainKey) {
	out := &Chain{Key: fromChainKey(k)}
	if v != nil {
		out.Function, out.Transparent = v.Function, v.Transparent
		for _, h := range v.Hops {
			out.Hops = append(out.Hops, &Hop{Project: h.Project, Workload: h.Workload, Addr: fromAddr(h.Addr), Mac: fromMAC(h.MAC), Node: h.Node})
		}
		k = v.ChainKey
	}
	return &Row{Row: &Row_Chain{out}}, k
}

func serviceRow(k snapshot.ServiceKey, v *snapshot.Service) (*Row, snapshot.ServiceKey) {
	out := &Service{Addr: fromAddr(k.Addr), Protocol: uint32(k.Protocol), Port: uint32(k.Port)}
	if v != nil {
		out.Project, out.Name, out.Floating, out.PortName = v.Project, v.Name, v.Floating, v.PortName
		out.Names, out.Affinity, out.App = v.Names, int64(v.Affinity), string(v.App)
		out.Backends, out.Leaving = fromBackends(v.Backends), fromBackends(v.Leaving)
		k = v.ServiceKey
	}
	return &Row{Row: &Row_Service{out}}, k
}

func fromBackends(in []snapshot.Backend) []*Backend {
	var out []*Backend
	for _, b := range in {
		out = append(out, &Backend{Addr: fromAddr(b.Addr), Port: uint32(b.Port), Weight: b.Weight, Node: b.Node})
	}
	return out
}

func exitRow(k snapshot.VNI, v *snapshot.Exit) (*Row, snapshot.VNI) {
	out := &Exit{Vni: uint32(k)}
	if v != nil {
		out.Gateway, out.Addresses, out.Hosts = v.Gateway, fromAddrs(v.Addresses), fromHostPorts(v.Hosts)
		k = v.VNI
	}
	return &Row{Row: &Row_Exit{out}}, k
}

func fromHostPorts(in []snapshot.HostPort) []*PortRange {
	var out []*PortRange
	for _, h := range in {
		out = append(out, fromPorts(policy.PortRange(h)))
	}
	return out
}

func masqueradeRow(k snapshot.Addr, v *snapshot.Masquerade) (*Row, snapshot.Addr) {
	out := &Masquerade{Addr: fromAddr(k)}
	if v != nil {
		out.As, out.Node = v.As.AsSlice(), v.Node
		k = v.Addr
	}
	return &Row{Row: &Row_Masquerade{out}}, k
}

func externalRow(k netip.Addr, v *snapshot.External) (*Row, netip.Addr) {
	out := &External{Address: k.AsSlice()}
	if v != nil {
		out.Node, out.Owner = v.Node, v.Owner
		k = v.Address
	}
	return &Row{Row: &Row_External{out}}, k
}

func namesRow(k snapshot.VNI, v *snapshot.DNS) (*Row, snapshot.VNI) {
	out := &Names{Vni: uint32(k)}
	if v != nil {
		out.Zone, out.Search, out.Ttl, out.Order = v.Zone, v.Search, int64(v.TTL), v.Order
		out.Forward, out.NoForward, out.Metadata = fromServers(v.Forward), v.NoForward, v.Metadata
		for _, r := range v.Records {
			out.Records = append(out.Records, &NameRecord{Name: r.Name, Type: r.Type, Data: r.Data, Ttl: int64(r.TTL)})
		}
		for _, d := range v.Delegations {
			out.Delegations = append(out.Delegations, &Delegation{Zone: d.Zone, Servers: fromServers(d.Servers)})
		}
		k = v.VNI
	}
	return &Row{Row: &Row_Names{out}}, k
}

func fromServers(in []netip.AddrPort) []*Server {
	var out []*Server
	for _, s := range in {
		out = append(out, &Server{Address: s.Addr().AsSlice(), Port: uint32(s.Port())})
	}
	return out
}

func fromCheckKey(k snapshot.CheckKey) *CheckKey {
	return &CheckKey{Addr: fromAddr(k.Addr), Kind: k.Kind, Port: uint32(k.Port), Path: k.Path,
		Tls: k.TLS, Host: k.Host, Statuses: k.Statuses, Service: k.Service}
}

func checkRow(k snapshot.CheckKey, v *snapshot.Check) (*Row, snapshot.CheckKey) {
	out := &Check{Key: fromCheckKey(k)}
	if v != nil {
		out.Interval, out.Timeout = int64(v.Interval), int64(v.Timeout)
		out.Failures, out.Successes = uint32(v.Failures), uint32(v.Successes)
		k = v.CheckKey
	}
	return &Row{Row: &Row_Check{out}}, k
}

func captureRow(k string, v *snapshot.Capture) (*Row, string) {
	out := &Capture{Id: k}
	if v != nil {
		out.Trace, out.Workload = v.Trace, v.Workload
		out.A, out.B = v.A.AsSlice(), v.B.AsSlice()
		out.Protocol, out.Port, out.Verdict, out.Rule = uint32(v.Protocol), uint32(v.Port), v.Verdict, v.Rule
		out.Until, out.Packets, out.Length = nanos(v.Until), uint32(v.Packets), uint32(v.Length)
		for _, n := range v.VNIs {
			out.Vnis = append(out.Vnis, uint32(n))
		}
		if p := v.Probe; p != (snapshot.Probe{}) {
			out.Probe = &Probe{Source: fromAddr(p.Source), Destination: fromAddr(p.Destination), Protocol: uint32(p.Protocol), SourcePort: uint32(p.SourcePort), Port: uint32(p.Port)}
		}
		k = v.ID
	}
	return &Row{Row: &Row_Capture{out}}, k
}

// ownRow is what a snapshot has once; nil when all of it is zero.
func ownRow(s *snapshot.Snapshot) *Row {
	if s.Firewall == nil && !s.AcceptMassDelete {
		return nil
	}
	out := &Own{AcceptMassDelete: s.AcceptMassDelete}
	if f := s.Firewall; f != nil {
		out.Firewall = &Firewall{Audit: f.Audit, AcceptLockOut: f.AcceptLockOut}
		for _, r := range f.Allow {
			out.Firewall.Allow = append(out.Firewall.Allow, &FirewallRule{Name: r.Name, From: fromPrefixes(r.From), Ports: fromHostPorts(r.Ports)})
		}
	}
	return &Row{Row: &Row_Own{out}}
}

// FromCaptured makes the message of what captures saw.
func FromCaptured(in []snapshot.Captured) []*Captured {
	out := make([]*Captured, 0, len(in))
	for i := range in {
		c := &in[i]
		out = append(out, &Captured{
			Capture: c.Capture, Time: nanos(c.Time), Where: c.Where, Vni: uint32(c.VNI), Interface: c.Interface,
			Verdict: c.Verdict, Rule: c.Rule, Reason: c.Reason, Length: uint32(c.Length), Data: c.Data, Text: c.Text,
		})
	}
	return out
}

// ToCaptured checks what a node says that captures saw; node is who it is.
func ToCaptured(node string, in []*Captured) ([]snapshot.Captured, error) {
	c := check{row: "captured"}
	c.count("captured", len(in), maxItems)
	var out []snapshot.Captured
	for _, m := range in {
		if c.err != nil {
			return nil, c.err
		}
		p := snapshot.Captured{
			Capture: c.name("capture", m.GetCapture()), Time: c.moment("time", m.GetTime()), Node: node,
			Where: c.text("where", m.GetWhere(), maxName), VNI: c.vni("vni", m.GetVni()), Interface: c.text("interface", m.GetInterface(), 3*maxName),
			Verdict: c.text("verdict", m.GetVerdict(), maxName), Rule: c.text("rule", m.GetRule(), maxRuleID),
			Reason: c.text("reason", m.GetReason(), maxName), Length: int(m.GetLength()), Data: m.GetData(), Text: c.text("text", m.GetText(), maxText),
		}
		if len(p.Data) > maxFrame {
			c.failf("data", "%d bytes; at most %d", len(p.Data), maxFrame)
		}
		out = append(out, p)
	}
	return out, c.err
}
