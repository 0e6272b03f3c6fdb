package lab

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"moire.dev/moire/datapath"
	"moire.dev/moire/explain"
	"moire.dev/moire/lab/scenario"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Check asks explain who the ends are, and the kernel what happens.
func (k *kernel) Check(c *scenario.Check) error {
	if c.Problem != "" {
		return nil // compile's own matter: stage 1
	}
	a := explain.Packet(c.Query(), k.snaps)
	if a.Error != "" {
		return c.Compare(scenario.Seen{Verdict: scenario.Unattached})
	}
	to, port, ok := k.target(c, a)
	if !ok {
		return nil
	}
	mac := snapshot.MAC{2, 0, 0, 0, 0, 1} // of the router outside
	if a.Source.MAC != "" {
		var err error
		if mac, err = snapshot.ParseMAC(a.Source.MAC); err != nil {
			return err
		}
	}
	k.port++
	f := &follower{kernel: k, a: a, seen: scenario.Seen{Verdict: scenario.Deny}}
	if err := f.send(frame(mac, a.Source.Address, to, protocols[c.Protocol], k.port, port)); err != nil {
		return fmt.Errorf("line %d: %s: %w", c.Line, c.Text, err)
	}
	return c.Compare(f.seen)
}

// target is what the source sends to; false when no such packet can be written,
// or when it would be for somebody else.
func (k *kernel) target(c *scenario.Check, a explain.Answer) (to netip.Addr, port uint16, ok bool) {
	switch ap, err := netip.ParseAddrPort(a.Sent); {
	case err == nil:
		to = ap.Addr()
	case a.Sent != "":
		to = netip.MustParseAddr(a.Sent)
	case a.Destination != nil:
		// A Workload of another Network, at its address there. In the Network of
		// the source that may be somebody else, who is asked about on a line of
		// his own, and what is outside.
		to = a.Destination.Address
		s := k.snaps[a.Source.Node]
		vni := snapshot.VNI(a.Source.VNI)
		_, taken := s.Endpoints[snapshot.Addr{VNI: vni, IP: to}]
		inside := slices.ContainsFunc(s.Networks[vni].Prefixes, func(p netip.Prefix) bool { return p.Contains(to) })
		if taken || !inside {
			return to, 0, false
		}
	default:
		return to, 0, false
	}
	return to, c.Port, to.Is6() == a.Source.Address.Is6()
}

// follower goes with one packet from node to node.
type follower struct {
	*kernel
	a    explain.Answer
	seen scenario.Seen
}

// send takes a packet from its source to its end, over the underlay if need be.
func (f *follower) send(packet []byte) error {
	a := f.a
	if a.Source.VNI == uint32(snapshot.Outside) {
		return f.fromOutside(packet)
	}
	n := f.nodes[a.Source.Node]
	if n == nil { // behind a node without an agent
		to := f.nodes[a.Destination.Node]
		if to == nil {
			f.seen.Verdict = scenario.Allow
			return nil
		}
		from := f.snaps[to.name].Nodes[a.Source.Node].Address
		return f.receive(inVXLAN(packet, snapshot.VNI(a.Source.VNI), from, to.addr))
	}
	network := f.snaps[n.name].Networks[snapshot.VNI(a.Source.VNI)].Name
	key := snapshot.AttachmentKey{Project: a.Source.Project, Workload: a.Source.Workload, Network: network}
	j, err := n.judge(datapath.HostName(n.name, key), packet)
	if err != nil {
		return err
	}
	f.take(j, true)
	switch j.Action {
	case datapath.Deliver:
		f.seen.Ingress = policy.RuleID(j.IngressRule)
		f.arrived(j.Packet)
	case datapath.Send:
		return f.receive(j.Packet)
	case datapath.Answer:
		if j.Drop == "" { // the gateway answers a ping
			f.seen.Verdict = scenario.Allow
		}
	}
	return nil
}

// fromOutside hands the packet to the node that answers for its destination on
// the underlay.
func (f *follower) fromOutside(packet []byte) error {
	_, to, _ := inner(packet)
	for _, s := range f.snaps {
		n := f.nodes[s.Externals[to].Node]
		if n == nil {
			continue
		}
		j, err := n.judge(datapath.Uplink, packet)
		if err != nil {
			return err
		}
		f.take(j, false)
		switch j.Action {
		case datapath.Deliver:
			f.arrived(j.Packet)
		case datapath.Send:
			return f.receive(j.Packet)
		}
		return nil
	}
	return fmt.Errorf("no node answers for %s", to)
}

// receive hands a packet of the underlay to the node that it is for.
func (f *follower) receive(packet []byte) error {
	to, err := outer(packet)
	if err != nil {
		return err
	}
	var n *kernelNode
	for _, x := range f.nodes {
		if x.addr == to {
			n = x
		}
	}
	if n == nil { // a node without an agent judges nothing
		f.seen.Verdict = scenario.Allow
		return nil
	}
	j, err := n.judge(datapath.Uplink, packet)
	if err != nil {
		return err
	}
	f.take(j, false)
	switch j.Action {
	case datapath.Deliver:
		f.arrived(j.Packet)
	case datapath.Drop:
	default:
		return errors.New("the receiving node does not take it: " + string(j.Action))
	}
	return nil
}

// take notes which rule a node gave.
func (f *follower) take(j datapath.Judgement, egress bool) {
	rule := policy.RuleID(j.Rule)
	if j.Drop != "" {
		rule = policy.RuleID("closed/" + j.Drop)
	}
	f.seen.Rule = rule
	if egress {
		f.seen.Egress = rule
	} else {
		f.seen.Ingress = rule
	}
	if j.Shadow != "" {
		f.seen.ShadowRule, f.seen.Shadow = policy.RuleID(j.Shadow), scenario.Deny
		if j.ShadowAllow {
			f.seen.Shadow = scenario.Allow
		}
	}
}

// arrived notes how the packet looks to whom it is delivered.
func (f *follower) arrived(packet []byte) {
	f.seen.Verdict = scenario.Allow
	src, dst, port := inner(packet)
	if !src.IsValid() || f.a.Destination == nil {
		return
	}
	if src != f.a.Source.Address {
		f.seen.As = src.String()
	}
	f.seen.Service = f.a.Service
	if dst.String() != f.a.Sent && f.a.Backend == "" {
		f.seen.At = dst.String()
	}
	for _, b := range f.backends() {
		if b.addr == dst && (b.port == 0 || b.port == port) {
			f.seen.Backends = []string{b.name}
			if f.a.TranslatedDestination != "" {
				f.seen.At = netip.AddrPortFrom(dst, port).String()
			}
		}
	}
}

// backend is one that explain says a hash may choose.
type backend struct {
	name string
	addr netip.Addr
	port uint16
}

func (f *follower) backends() []backend {
	var out []backend
	for _, w := range scenario.Ways(f.a) {
		b := backend{name: cmp.Or(w.Workload, w.Backend)}
		if ap, err := netip.ParseAddrPort(w.Backend); err == nil {
			b.addr, b.port = ap.Addr(), ap.Port()
		} else if b.addr, err = netip.ParseAddr(w.Backend); err != nil {
			continue
		}
		out = append(out, b)
	}
	return out
}

// outer is the destination of a packet of the underlay.
func outer(packet []byte) (netip.Addr, error) {
	if len(packet) < 34 {
		return netip.Addr{}, fmt.Errorf("%d bytes are no packet of the underlay", len(packet))
	}
	a, _ := netip.AddrFromSlice(packet[30:34])
	return a, nil
}

// inner are the addresses and the destination port of a frame.
func inner(b []byte) (src, dst netip.Addr, port uint16) {
	if len(b) < 14 {
		return
	}
	var proto byte
	switch binary.BigEndian.Uint16(b[12:]) {
	case 0x0800:
		if len(b) < 38 {
			return
		}
		src, _ = netip.AddrFromSlice(b[26:30])
		dst, _ = netip.AddrFromSlice(b[30:34])
		proto, b = b[23], b[34:]
	case 0x86dd:
		if len(b) < 58 {
			return
		}
		src, _ = netip.AddrFromSlice(b[22:38])
		dst, _ = netip.AddrFromSlice(b[38:54])
		proto, b = b[20], b[54:]
	}
	if proto == protoTCP || proto == protoUDP || proto == protoSCTP {
		port = binary.BigEndian.Uint16(b[2:])
	}
	return
}
