package datapath

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// firewallTable is the name of our table of nftables; there is nothing of ours
// in any other.
func firewallTable(node string) string { return aliasMark[:len(aliasMark)-1] + "-" + node }

// firewall is what was written last; the zero value: nothing.
type firewall struct {
	digest digest
	rules  int
}

// applyFirewall makes the table of the node's own firewall what the snapshot
// says: in one transaction, so that there is never half of it. Without one there
// is no table.
func (d *Datapath) applyFirewall(state State) error {
	s, ports := state.Snapshot, d.controlPorts(state)
	if s.Firewall == nil && d.firewall == (firewall{}) && !d.firewallUnknown {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("talk to nftables: %w", err)
	}
	table, rules, err := findFirewall(c, d.cfg.Node)
	if err != nil {
		return err
	}
	if s.Firewall == nil {
		d.firewall, d.firewallUnknown = firewall{}, false
		return removeFirewall(c, table)
	}
	want := firewallDigest(s, ports)
	if table != nil && d.firewall == (firewall{want, len(rules)}) {
		return nil
	}
	w := firewallWriter{c: c}
	if table != nil {
		c.DelTable(table)
	}
	w.table = c.AddTable(&nftables.Table{Name: firewallTable(d.cfg.Node), Family: nftables.TableFamilyINet})
	if err := writeFirewall(&w, s, ports); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write the firewall of the node: %w; the kernel needs nf_tables with conntrack (nft list ruleset)", err)
	}
	d.writes.Add(1)
	d.firewall, d.firewallUnknown = firewall{want, w.rules}, false
	return nil
}

// findFirewall looks for the table of a node, and reads its rules; nil: there is
// none.
func findFirewall(c *nftables.Conn, node string) (*nftables.Table, []*nftables.Rule, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	for _, without := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EINVAL} {
		if errors.Is(err, without) {
			return nil, nil, nil // a kernel without nf_tables has none
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list tables of nftables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == firewallTable(node) })
	if i < 0 {
		return nil, nil, nil
	}
	rules, err := c.GetRules(tables[i], &nftables.Chain{Name: firewallChain, Table: tables[i]})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, nil, fmt.Errorf("list rules of nftables: %w", err)
	}
	return tables[i], rules, nil
}

func removeFirewall(c *nftables.Conn, table *nftables.Table) error {
	if table == nil {
		return nil
	}
	c.DelTable(table)
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the firewall of the node: %w", err)
	}
	return nil
}

// cleanFirewall removes the table of a node in the namespace of the thread.
func cleanFirewall(node string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("talk to nftables: %w", err)
	}
	table, _, err := findFirewall(c, node)
	if err != nil {
		return err
	}
	return removeFirewall(c, table)
}

const firewallChain = "input"

// nodeAddresses of the underlay, sorted.
func nodeAddresses(s *snapshot.Snapshot) []netip.Addr {
	set := map[netip.Addr]bool{}
	for _, n := range s.Nodes {
		if n.Address.IsValid() {
			set[n.Address.Unmap()] = true
		}
	}
	return sortedAddrs(set)
}

// controlPorts that the firewall never closes, sorted.
func (d *Datapath) controlPorts(s State) []uint16 {
	ports := slices.Concat(d.cfg.ControlPorts, s.ControlPorts)
	slices.Sort(ports)
	return slices.Compact(ports)
}

func firewallDigest(s *snapshot.Snapshot, control []uint16) digest {
	var b bytes.Buffer
	fmt.Fprintln(&b, s.Firewall.Audit, nodeAddresses(s), control)
	for _, r := range s.Firewall.Allow {
		fmt.Fprintf(&b, "%q %v %v\n", r.Name, r.From, r.Ports)
	}
	return sha256.Sum256(b.Bytes())
}

// writeFirewall says what may come in. What is not told about a node on purpose
// is at the end: dropped, or, in an audit, only counted.
func writeFirewall(w *firewallWriter, s *snapshot.Snapshot, control []uint16) error {
	accept := nftables.ChainPolicyAccept
	w.chain = w.c.AddChain(&nftables.Chain{
		Name: firewallChain, Table: w.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
		Priority: nftables.ChainPriorityFilter, Policy: &accept,
	})
	w.accept("replies", established()...)
	w.accept("loopback", &expr.Meta{Key: expr.MetaKeyIIF, Register: 1}, equal(binaryutil.NativeEndian.PutUint32(loopback)))
	for _, kind := range []byte{3, 11, 12} { // unreachable, time exceeded, parameter problem
		w.accept("ICMP errors", join(proto(unix.IPPROTO_ICMP), atTransport(0, 1), equal([]byte{kind}))...)
	}
	for _, r := range [][2]byte{{1, 4}, {130, 137}, {143, 143}} { // errors, listeners and neighbours
		w.accept("ICMPv6 errors and neighbours", join(proto(unix.IPPROTO_ICMPV6), atTransport(0, 1), between([]byte{r[0]}, []byte{r[1]}))...)
	}
	w.accept("DHCP", join(proto(policy.UDP), atTransport(0, 4), equal([]byte{0, 67, 0, 68}))...)
	w.accept("DHCPv6", join(proto(policy.UDP), atTransport(0, 4), equal([]byte{2, 35, 2, 34}))...)
	var nodes []netip.Prefix
	for _, a := range nodeAddresses(s) {
		nodes = append(nodes, netip.PrefixFrom(a, a.BitLen()))
	}
	vxlan := join(proto(policy.UDP), atTransport(2, 2), equal(binary.BigEndian.AppendUint16(nil, 4789)))
	if err := w.acceptFrom("VXLAN of nodes", nodes, vxlan); err != nil {
		return err
	}
	for _, port := range control {
		w.accept("control plane", join(proto(policy.TCP), atTransport(2, 2), equal(binary.BigEndian.AppendUint16(nil, port)))...)
	}
	for _, r := range s.Firewall.Allow {
		ports := [][]expr.Any{nil}
		if len(r.Ports) > 0 {
			ports = nil
		}
		for _, p := range r.Ports {
			ports = append(ports, portMatches(p)...)
		}
		for _, match := range ports {
			var err error
			if len(r.From) == 0 {
				w.accept("rule "+r.Name, match...)
			} else {
				err = w.acceptFrom("rule "+r.Name, r.From, match)
			}
			if err != nil {
				return fmt.Errorf("rule %q of the firewall: %w", r.Name, err)
			}
		}
	}
	end := expr.VerdictDrop
	if s.Firewall.Audit {
		end = expr.VerdictAccept
	}
	w.rule("what no rule allows", end)
	return nil
}

// portMatches is what a port range of a protocol looks like; ICMP stands for
// ICMPv6 too.
func portMatches(p snapshot.HostPort) [][]expr.Any {
	if p.Protocol == policy.ICMP {
		return [][]expr.Any{proto(unix.IPPROTO_ICMP), proto(unix.IPPROTO_ICMPV6)}
	}
	match := proto(p.Protocol)
	if p.First > 0 || p.Last < 65535 {
		match = join(match, atTransport(2, 2),
			between(binary.BigEndian.AppendUint16(nil, p.First), binary.BigEndian.AppendUint16(nil, p.Last)))
	}
	return [][]expr.Any{match}
}

// firewallWriter collects one transaction.
type firewallWriter struct {
	c     *nftables.Conn
	table *nftables.Table
	chain *nftables.Chain
	rules int
	sets  int
}

func (w *firewallWriter) accept(comment string, match ...expr.Any) {
	w.rule(comment, expr.VerdictAccept, match...)
}

func (w *firewallWriter) rule(comment string, verdict expr.VerdictKind, match ...expr.Any) {
	w.rules++
	w.c.AddRule(&nftables.Rule{
		Table: w.table, Chain: w.chain, UserData: firewallComment(comment),
		Exprs: append(slices.Clone(match), &expr.Counter{}, &expr.Verdict{Kind: verdict}),
	})
}

// acceptFrom accepts from sources, by one set for each family.
func (w *firewallWriter) acceptFrom(comment string, from []netip.Prefix, match []expr.Any) error {
	for _, v6 := range []bool{false, true} {
		var b netipx.IPSetBuilder
		for _, p := range from {
			if p.IsValid() && p.Addr().Unmap().Is6() == v6 {
				b.AddPrefix(p.Masked())
			}
		}
		set, err := b.IPSet()
		if err != nil {
			return err
		}
		if len(set.Ranges()) == 0 {
			continue
		}
		kind, family, offset, length := nftables.TypeIPAddr, byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
		if v6 {
			kind, family, offset, length = nftables.TypeIP6Addr, unix.NFPROTO_IPV6, 8, 16
		}
		w.sets++
		s := &nftables.Set{Table: w.table, Name: fmt.Sprint("from", w.sets), KeyType: kind, Interval: true}
		if err := w.c.AddSet(s, intervals(set.Ranges())); err != nil {
			return err
		}
		w.accept(comment, append([]expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{family}),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
			&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID},
		}, match...)...)
	}
	return nil
}

// intervals are half open; nothing ends what reaches the last address.
func intervals(ranges []netipx.IPRange) []nftables.SetElement {
	var out []nftables.SetElement
	for _, r := range ranges {
		out = append(out, nftables.SetElement{Key: r.From().AsSlice()})
		if end := r.To().Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// firewallComment is what `nft list ruleset` shows beside a rule.
func firewallComment(text string) []byte {
	text = text[:min(len(text), 120)] + "\x00"
	return append([]byte{0, byte(len(text))}, text...)
}

func join(parts ...any) (out []expr.Any) {
	for _, p := range parts {
		switch p := p.(type) {
		case []expr.Any:
			out = append(out, p...)
		case expr.Any:
			out = append(out, p)
		}
	}
	return out
}

func proto(p uint8) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{p})}
}

func atTransport(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}
}

func equal(b []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }

func between(first, last []byte) expr.Any {
	return &expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: first, ToData: last}
}

func established() []expr.Any {
	none := []byte{0, 0, 0, 0}
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Xor: none,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: none},
	}
}

// firewalled counts the packets that no rule of the node's firewall allowed, since
// it was written last: dropped, or in an audit let through. 0 without one. It looks
// in the namespace of the thread.
func firewalled(node string) (packets uint64, err error) {
	c, err := nftables.New()
	if err != nil {
		return 0, fmt.Errorf("talk to nftables: %w", err)
	}
	_, rules, err := findFirewall(c, node)
	if err != nil || len(rules) == 0 {
		return 0, err
	}
	for _, e := range rules[len(rules)-1].Exprs {
		if n, ok := e.(*expr.Counter); ok {
			packets = n.Packets
		}
	}
	return packets, nil
}
