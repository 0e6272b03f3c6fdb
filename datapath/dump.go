package datapath

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"moire.dev/moire/datapath/bpf"
)

// Dump writes what is in the kernel now, read from there, in a fixed order.
func (d *Datapath) Dump(w io.Writer) error {
	return d.locked(func() error {
		if err := d.readTables(); err != nil {
			return err
		}
		c := d.tables.control.rows[0]
		fmt.Fprintf(w, "datapath node=%s uplink=%s address=%s %s epoch=%d\n", d.cfg.Node, d.uplink.Name, ipOf(c.Self), d.layout, c.Epoch)
		for _, pin := range slices.Sorted(maps.Keys(d.links)) {
			fmt.Fprintf(w, "link %s ifindex=%d\n", pin, d.links[pin].ifindex)
		}
		lines(w, d.tables.ifaces.rows, func(k uint32, v bpf.MoireIface) string {
			return fmt.Sprintf("iface %d vni=%d mac=%s mtu=%d closed=%d", k, v.Vni, net.HardwareAddr(v.Mac[:]), v.Mtu, v.Closed)
		})
		lines(w, d.tables.networks.rows, func(k, v uint32) string { return fmt.Sprintf("network %d mtu=%d", k, v) })
		lines(w, d.tables.vteps.rows, func(k bpf.MoireAddr, v uint32) string {
			return fmt.Sprintf("node %d address=%s onlink=%d", v, ipOf(k), d.tables.nodes.rows[v].Onlink)
		})
		lines(w, d.tables.routes.rows, func(k bpf.MoireRouteKey, v uint32) string {
			return fmt.Sprintf("route %d/%s kind=%d", k.Vni, prefixOf(k), v)
		})
		lines(w, d.tables.endpoints.rows, func(k bpf.MoireAddrKey, v bpf.MoireEndpoint) string {
			return fmt.Sprintf("endpoint %d/%s ifindex=%d node=%d identity=%d egress=%x ingress=%x mac=%s how=%d home=%d/%s chain=%x",
				k.Vni, ipOf(k.Addr), v.Ifindex, v.Node, v.Identity, v.Egress, v.Ingress, net.HardwareAddr(v.Mac[:]), v.How, v.Home.Vni, ipOf(v.Home.Addr), v.Chain)
		})
		d.dumpServices(w)
		d.dumpChains(w)
		d.dumpMesh(w)
		d.dumpOutside(w)
		d.dumpPolicy(w)
		return d.dumpSessions(w)
	})
}

func (d *Datapath) dumpServices(w io.Writer) {
	lines(w, d.tables.rates.rows, func(k bpf.MoireRateKey, v bpf.MoireRate) string {
		return fmt.Sprintf("rate %s %d %s bits=%d", [...]string{"interface", "network"}[k.Network&1], k.Number, [...]string{"egress", "ingress"}[k.Direction&1], v.Bits)
	})
	b := d.services
	lines(w, b.rows.rows, func(k bpf.MoireServiceKey, v bpf.MoireService) string {
		return fmt.Sprintf("service %d/%s proto=%d port=%d id=%d flags=%x affinity=%d slots=%d table=%d only=%d here=%d",
			k.Vni, ipOf(k.Addr), k.Proto, ntohs(k.Port), v.Id, v.Flags, v.Affinity, v.All.Size, v.All.Table, v.All.Only, v.Here.Size+v.Here.Only)
	})
	lines(w, b.backends.rows, func(k bpf.MoireBackendKey, v bpf.MoireBackend) string {
		return fmt.Sprintf("backend %d.%d %d/%s port=%d flags=%x", k.Service, k.Index, v.Vni, ipOf(v.Addr), ntohs(v.Port), v.Flags)
	})
}

func (d *Datapath) dumpChains(w io.Writer) {
	lines(w, d.tables.chains.rows, func(k bpf.MoireChainKey, c bpf.MoireChain) string {
		share := map[uint32]int{}
		for _, id := range c.Slots {
			share[id]++
		}
		return fmt.Sprintf("chain %d/%x slots=%v", k.Vni, k.Number, share)
	})
	lines(w, d.tables.functions.rows, func(k bpf.MoireFunctionKey, h bpf.MoireHop) string {
		return fmt.Sprintf("function %d/%x id=%d ifindex=%d node=%d mac=%s how=%d", k.Vni, k.Chain, k.Id, k.Ifindex, k.Node, net.HardwareAddr(k.Mac[:]), h.How)
	})
}

func (d *Datapath) dumpPolicy(w io.Writer) {
	lines(w, d.sets.classes.rows, func(k bpf.MoireRouteKey, v uint32) string {
		return fmt.Sprintf("class set=%x %s number=%d", k.Vni, prefixOf(k), v)
	})
	names := d.rules.names
	lines(w, d.sets.entries.rows, func(k bpf.MoirePolicyKey, v bpf.MoireVerdict) string {
		s := fmt.Sprintf("policy set=%x class=%d identity=%d proto=%d port=%d bits=%d allow=%d rule=%s",
			k.Set, k.Class, k.Identity, k.Proto, uint16(k.Port[0])<<8|uint16(k.Port[1]), k.Bits-96, v.Allow, names[v.Rule])
		if v.Shadow != 0 {
			s += fmt.Sprintf(" shadow-allow=%d shadow-rule=%s", v.ShadowAllow, names[v.Shadow])
		}
		return s
	})
}

func (d *Datapath) dumpSessions(w io.Writer) error {
	sessions := map[bpf.MoireSessionKey]bpf.MoireSession{}
	err := d.eachSession(func(_ *ebpf.Map, k bpf.MoireSessionKey, s bpf.MoireSession) { sessions[k] = s })
	if err != nil {
		return fmt.Errorf("read sessions: %w", err)
	}
	lines(w, sessions, func(k bpf.MoireSessionKey, s bpf.MoireSession) string {
		src, dst := netip.AddrPortFrom(ipOf(k.A), ntohs(k.Aport)), netip.AddrPortFrom(ipOf(k.B), ntohs(k.Bport))
		if s.A_first == 0 {
			src, dst = dst, src
		}
		guises := ""
		for i, g := range s.Guise {
			if g.Kind != 0 {
				guises += fmt.Sprintf(" guise%d=%d:%d:%s->%s:%d", i, g.Kind, g.Vni, netip.AddrPortFrom(ipOf(g.Addr[0]), ntohs(g.Port[0])),
					netip.AddrPortFrom(ipOf(g.Addr[1]), ntohs(g.Port[1])), g.Flags)
			}
		}
		return fmt.Sprintf("session %d %s %s -> %s packets=%d/%d bytes=%d/%d rules=%s/%s flags=%x reason=%s%s",
			k.Vni, protocolName(k.Proto), src, dst, s.Packets[0], s.Packets[1], s.Bytes[0], s.Bytes[1],
			d.rules.names[s.Rule[0]], d.rules.names[s.Rule[1]], s.Flags, reasonName(uint32(s.Reason)), guises)
	})
	for _, c := range d.Drops() {
		fmt.Fprintf(w, "drops reason=%s rule=%s network=%d packets=%d\n", c.Reason, c.Rule, c.Network, c.Packets)
	}
	fmt.Fprintf(w, "events lost=%d\n", d.Lost())
	fmt.Fprintf(w, "captures lost=%d\n", sumOf(d.objects.WatchLost)) // should have seen and did not, as the ring buffer was full
	return d.dumpFirewall(w)
}

// prefixOf is the inverse of prefixKey.
func prefixOf(k bpf.MoireRouteKey) netip.Prefix {
	a := netip.AddrFrom16(k.Addr)
	if k.Family>>24 == 4 {
		a = netip.AddrFrom4([4]byte(k.Addr[:4]))
	}
	return netip.PrefixFrom(a, int(k.Bits)-64)
}

func lines[K, V comparable](w io.Writer, rows map[K]V, line func(K, V) string) {
	out := make([]string, 0, len(rows))
	for k, v := range rows {
		out = append(out, line(k, v))
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(a, b) })
	if len(out) > 0 {
		fmt.Fprintln(w, strings.Join(out, "\n"))
	}
}

// dumpFirewall says what the node's own firewall counted, when there is one.
func (d *Datapath) dumpFirewall(w io.Writer) error {
	if d.firewall == (firewall{}) {
		return nil
	}
	packets, err := firewalled(d.cfg.Node)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "firewall packets=%d\n", packets)
	return err
}

func (d *Datapath) dumpOutside(w io.Writer) {
	lines(w, d.tables.exits.rows, func(k uint32, v bpf.MoireExit) string {
		return fmt.Sprintf("exit %d node=%d as=%s,%s given=%d", k, v.Node, ipOf(v.As[0]), ipOf(v.As[1]), v.Given)
	})
	lines(w, d.tables.masquerades.rows, func(k bpf.MoireAddrKey, v bpf.MoireMasquerade) string {
		return fmt.Sprintf("masquerade %d/%s node=%d as=%s", k.Vni, ipOf(k.Addr), v.Node, ipOf(v.As))
	})
	lines(w, d.tables.fronts.rows, func(k bpf.MoireAddr, v bpf.MoireFront) string {
		return fmt.Sprintf("front %s kind=%d node=%d", ipOf(k), v.Kind, v.Node)
	})
	lines(w, d.tables.hostPorts.rows, func(k bpf.MoireHostPortKey, _ uint32) string {
		return fmt.Sprintf("host-port %d proto=%d port=%d bits=%d", k.Vni, k.Proto, uint16(k.Port[0])<<8|uint16(k.Port[1]), k.Bits)
	})
	lines(w, d.tables.watches.rows, func(k uint32, v bpf.MoireWatch) string {
		return fmt.Sprintf("watch %d id=%x flags=%x", k, v.Id, v.Flags)
	})
}
