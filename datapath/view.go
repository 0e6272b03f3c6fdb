package datapath

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"strconv"
	"time"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Kinds of event, as in tables.h.
const (
	eventStarted = 1
	eventEnded   = 2
	eventDenied  = 3

	protoARP = 254
)

// view is what is needed to turn events into records. It never changes.
type view struct {
	node     string
	snapshot *snapshot.Snapshot
	rules    map[uint32]policy.RuleID
	locals   map[uint32]snapshot.AttachmentKey // by ifindex
	services map[uint32]string                 // project/name by id
	// instances of network functions.
	instances map[instanceAt]string
	// gone are endpoints of earlier snapshots: what is told of a Workload that
	// ran for a moment comes after it has left.
	gone map[snapshot.Addr]departed
}

// departed is an endpoint that left, with what was known of it.
type departed struct {
	endpoint snapshot.Endpoint
	network  snapshot.Network
	identity snapshot.Identity
	until    time.Time
}

// partingTime is how long an endpoint that left is named in records.
const partingTime = 15 * time.Second

// remember takes over what left between the earlier view and this one.
func (v *view) remember(earlier *view, now time.Time) *view {
	v.gone = map[snapshot.Addr]departed{}
	for a, d := range earlier.gone {
		if _, back := v.snapshot.Endpoints[a]; !back && now.Before(d.until) {
			v.gone[a] = d
		}
	}
	for a, e := range earlier.snapshot.Endpoints {
		if _, stays := v.snapshot.Endpoints[a]; !stays {
			v.gone[a] = departed{e, earlier.snapshot.Networks[a.VNI], earlier.snapshot.Identities[e.Identity], now.Add(partingTime)}
		}
	}
	return v
}

// who is at an address, now or until a moment ago.
func (v *view) who(a snapshot.Addr) (d departed, ok bool) {
	d.network, ok = v.snapshot.Networks[a.VNI]
	if e, here := v.snapshot.Endpoints[a]; here {
		d.endpoint, d.identity = e, v.snapshot.Identities[e.Identity]
		return d, true
	}
	if left, known := v.gone[a]; known {
		return left, true
	}
	return d, ok
}

func newView(node string, s State, links map[string]int, rules map[uint32]policy.RuleID, services map[uint32]string) *view {
	v := &view{node: node, snapshot: s.Snapshot, rules: maps.Clone(rules), services: services, locals: map[uint32]snapshot.AttachmentKey{}}
	if v.snapshot == nil {
		v.snapshot = &snapshot.Snapshot{}
	}
	v.instances = instancesOf(v.snapshot)
	for _, l := range s.Locals {
		if ifindex, ok := links[l.Host]; ok {
			v.locals[uint32(ifindex)] = l.Key
		}
	}
	return v
}

// recordOf says what an event means. now is the wall clock at since, in
// nanoseconds after boot.
func (v *view) recordOf(e *bpf.MoireEvent, now time.Time, since uint64) record.Record {
	wall := func(boot uint64) time.Time { return now.Add(-time.Duration(since - boot)).Round(0) }
	s := &e.Session
	r := record.Record{
		ID: sessionID(v.node, &e.Key, s.Created), Time: wall(e.Time), Start: wall(s.Created), Node: v.node,
		Protocol: protocolName(e.Key.Proto), Verdict: record.Allow,
		ForwardPackets: s.Packets[0], ForwardBytes: s.Bytes[0], ReplyPackets: s.Packets[1], ReplyBytes: s.Bytes[1],
	}
	switch e.Kind {
	case eventStarted:
		r.Kind = record.Started
	case eventEnded:
		r.Kind = record.Ended
	case eventDenied:
		r.Kind, r.Verdict, r.ForwardPackets = record.Denied, record.Deny, e.Count
	default:
		r.Kind = record.Update
	}
	src, dst := record.End{Address: ipOf(e.Key.A), Port: ntohs(e.Key.Aport)}, record.End{Address: ipOf(e.Key.B), Port: ntohs(e.Key.Bport)}
	if s.A_first == 0 {
		src, dst = dst, src
	}
	if r.Protocol == "icmp" {
		src.Port, dst.Port = 0, 0
	}
	spoofed := e.Reason >= 2 && e.Reason <= 5
	r.Source, r.Destination = v.end(src, e, 0, spoofed), v.end(dst, e, 1, false)
	v.otherViews(&r, e)
	r.Via = v.via(e)
	v.verdict(&r, e)
	return r
}

// end fills in who an end is. Of a spoofed source it is who sent it, not who
// it claims to be.
func (v *view) end(end record.End, e *bpf.MoireEvent, i int, spoofed bool) record.End {
	number := policy.Identity(e.Session.Identity[i])
	end.VNI = e.Key.Vni
	if end.Address.IsUnspecified() {
		end.Address = netip.Addr{}
	}
	who, known := v.who(placeOf(e, end.Address, i))
	if home := who.endpoint.Home; home.IP.IsValid() {
		if n, ok := v.snapshot.Networks[home.VNI]; ok {
			who.network = n
		}
	}
	if known {
		end.Domain, end.Project, end.Network = who.network.Domain, who.network.Project, who.network.Name
	}
	if spoofed {
		if k, ok := v.locals[e.Session.Hop[i].Ifindex]; ok {
			end.Project, end.Workload, end.Node = k.Project, k.Workload, v.node
		}
		return end
	}
	if p := who.endpoint; p.Workload != "" {
		end.Project, end.Workload, end.Node = p.Project, p.Workload, p.Node
		if number == 0 {
			number = p.Identity
		}
	}
	id, ok := v.snapshot.Identities[number]
	if !ok && who.identity.Number == number {
		id, ok = who.identity, true
	}
	if ok && number != 0 {
		end.Number, end.Identity, end.Domain = uint32(number), id.SPIFFE, id.Domain
		end.Labels = make(map[string]string, len(id.Labels))
		for _, l := range id.Labels {
			end.Labels[l.Key] = l.Value
		}
	}
	return end
}

// verdict fills in which rule decided, and where.
func (v *view) verdict(r *record.Record, e *bpf.MoireEvent) {
	s := &e.Session
	switch {
	case s.Judged&3 == 3:
		r.Observer = record.AtBoth
	case s.Judged&3 == 2 || s.Judged&3 == 0 && s.Hop[0].Ifindex == 0:
		r.Observer = record.AtDestination
	default:
		r.Observer = record.AtSource
	}
	if e.Kind == eventDenied && e.Reason != reasonPolicy {
		r.Drop = reasonName(e.Reason)
	}
	i := policy.Egress
	if s.Judged&3 == 2 || s.Judged&3 == 3 && isJudged(e.Reason) && s.Rule[1] != 0 {
		i = policy.Ingress
	}
	side := 0
	if i == policy.Ingress {
		side = 1
	}
	if s.Rule[side] != 0 {
		r.Rule, r.Direction = string(v.rules[s.Rule[side]]), i.String()
		r.Tier = policy.Tier(min(s.Tier[side], uint8(policy.Default))).String()
	}
	r.IngressRule = string(v.rules[s.Rule[1]])
	for j := range s.Shadow {
		if s.Shadow[j] != 0 && r.ShadowRule == "" {
			r.ShadowRule, r.ShadowVerdict = string(v.rules[s.Shadow[j]]), record.Deny
			if s.ShadowAllow[j] != 0 {
				r.ShadowVerdict = record.Allow
			}
		}
	}
}

func protocolName(p uint8) string {
	switch p {
	case policy.TCP:
		return "tcp"
	case policy.UDP:
		return "udp"
	case policy.SCTP:
		return "sctp"
	case policy.ICMP, 58:
		return "icmp"
	case protoARP:
		return "arp"
	}
	return strconv.Itoa(int(p))
}

// sessionID is the same for every record of one session of one observer.
func sessionID(node string, k *bpf.MoireSessionKey, created uint64) string {
	h := fnv.New64a()
	h.Write([]byte(node))
	for _, w := range append(k.A.W[:], k.B.W[:]...) {
		h.Write(binary.LittleEndian.AppendUint32(nil, w))
	}
	h.Write(binary.LittleEndian.AppendUint64(nil, created))
	h.Write([]byte{k.Proto, byte(k.Aport), byte(k.Aport >> 8), byte(k.Bport), byte(k.Bport >> 8), byte(k.Vni), byte(k.Vni >> 8), byte(k.Vni >> 16)})
	return fmt.Sprintf("%016x", h.Sum64())
}
