package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
)

// wears: packets from and to that end are not as the session is told.
func wears(s *bpf.MoireSession, end int) bool {
	return s.Guise[end].Kind != 0 && s.Guise[end].Flags&guiseAway == 0
}

// aliasKey is the key of packets in that guise.
func aliasKey(g *bpf.MoireGuise, proto uint8) bpf.MoireSessionKey {
	k := bpf.MoireSessionKey{A: g.Addr[0], B: g.Addr[1], Aport: g.Port[0], Bport: g.Port[1], Vni: g.Vni, Proto: proto}
	if !before(g.Addr[0], g.Addr[1], g.Port[0], g.Port[1]) {
		k.A, k.B, k.Aport, k.Bport = k.B, k.A, k.Bport, k.Aport
	}
	return k
}

// before orders the ends of a session as order_key does.
func before(a, b bpf.MoireAddr, aport, bport uint16) bool {
	for i := 0; i < len(a.W); i += 2 {
		x, y := uint64(a.W[i+1])<<32|uint64(a.W[i]), uint64(b.W[i+1])<<32|uint64(b.W[i])
		if x != y {
			return x < y
		}
	}
	return aport < bport
}

// dropAliases removes the other names of a session that is gone.
func (d *Datapath) dropAliases(k bpf.MoireSessionKey, s *bpf.MoireSession) error {
	for end := range s.Guise {
		if !wears(s, end) {
			continue
		}
		key := aliasKey(&s.Guise[end], k.Proto)
		for _, m := range d.aliases() {
			var a bpf.MoireAlias
			if err := m.Lookup(&key, &a); err != nil || a.Session != k {
				continue // gone, or of another session by now
			}
			if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("remove an alias of a session: %w", err)
			}
		}
	}
	return nil
}

// dropOrphans removes aliases of sessions that the kernel pushed out, or that
// were opened anew in another guise. living are the sessions that have one.
func (d *Datapath) dropOrphans(living map[bpf.MoireSessionKey][2]bpf.MoireGuise) error {
	for _, m := range d.aliases() {
		if err := d.dropOrphansOf(m, living); err != nil {
			return err
		}
	}
	return nil
}

// aliases are the tables of them.
func (d *Datapath) aliases() []*ebpf.Map { return []*ebpf.Map{d.objects.Aliases, d.objects.Throng} }

func (d *Datapath) dropOrphansOf(m *ebpf.Map, living map[bpf.MoireSessionKey][2]bpf.MoireGuise) error {
	var gone []bpf.MoireSessionKey
	err := eachRow(m, func(k bpf.MoireSessionKey, a bpf.MoireAlias) {
		guises, ok := living[a.Session]
		if !ok || aliasKey(&guises[a.End&1], k.Proto) != k {
			gone = append(gone, k)
		}
	})
	if err != nil {
		return fmt.Errorf("read aliases of sessions: %w", err)
	}
	for _, k := range gone {
		if d.isLiving(m, k) { // opened since
			continue
		}
		if err := m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove an alias of a session: %w", err)
		}
	}
	return nil
}

// isLiving: the alias leads to a session.
func (d *Datapath) isLiving(m *ebpf.Map, k bpf.MoireSessionKey) bool {
	var a bpf.MoireAlias
	var s bpf.MoireSession
	if m.Lookup(&k, &a) != nil {
		return false
	}
	if d.objects.Sessions.Lookup(&a.Session, &s) != nil && d.objects.Crowd.Lookup(&a.Session, &s) != nil {
		return false
	}
	return aliasKey(&s.Guise[a.End&1], k.Proto) == k
}

// placeOf is where an end of a session really is, as far as is known here.
func placeOf(e *bpf.MoireEvent, told netip.Addr, i int) snapshot.Addr {
	if g := &e.Session.Guise[1]; i == 1 && g.Kind != 0 && g.Vni != uint32(snapshot.Outside) {
		return snapshot.Addr{VNI: snapshot.VNI(g.Vni), IP: ipOf(g.Addr[1])}
	}
	return snapshot.Addr{VNI: snapshot.VNI(e.Key.Vni), IP: told}
}

// otherViews says how the ends see the session, where that is not as it is told.
func (v *view) otherViews(r *record.Record, e *bpf.MoireEvent) {
	show := func(a bpf.MoireAddr, port uint16) string {
		if r.Protocol == "icmp" || port == 0 {
			return ipOf(a).String()
		}
		return netip.AddrPortFrom(ipOf(a), ntohs(port)).String()
	}
	told := func(end record.End) string {
		if end.Port == 0 {
			return end.Address.String()
		}
		return netip.AddrPortFrom(end.Address, end.Port).String()
	}
	if g := &e.Session.Guise[0]; g.Kind == guiseService {
		r.Service, r.ServiceAddress = v.services[g.Service], show(g.Addr[1], g.Port[1])
	}
	g := &e.Session.Guise[1]
	if g.Kind == guiseFloating {
		r.Service, r.ServiceAddress = v.floatingAt(e, r.Destination), told(r.Destination)
	}
	if !wears(&e.Session, 1) {
		return
	}
	if s := show(g.Addr[0], g.Port[0]); s != told(r.Source) {
		r.TranslatedSource = s
	}
	if s := show(g.Addr[1], g.Port[1]); s != told(r.Destination) {
		r.TranslatedDestination = s
	}
}

// floatingAt is project/name of the FloatingIP at an end; empty when it is gone.
func (v *view) floatingAt(e *bpf.MoireEvent, end record.End) string {
	k := snapshot.ServiceKey{Addr: snapshot.Addr{VNI: snapshot.VNI(e.Key.Vni), IP: end.Address}, Protocol: e.Key.Proto, Port: end.Port}
	s, ok := v.snapshot.Services[k]
	if !ok {
		k.Protocol, k.Port = 0, 0
		if s, ok = v.snapshot.Services[k]; !ok {
			return ""
		}
	}
	return s.Project + "/" + s.Name
}
