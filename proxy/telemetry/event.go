package telemetry

import (
	"net/netip"

	"moire.dev/moire/snapshot/policy"
)

// data is how many bytes of text an event holds; when there is more, it is cut.
// An event has 768 bytes, 12 cache lines.
const data = 544

// Most bytes of one text in an event. The path has what the others leave, at
// least pathLeast; the agent comes last.
const (
	maxMethod    = 16
	maxRequestID = 48
	maxHost      = 96
	maxCaller    = 128
	maxForwarded = 48
	maxAgent     = 128
	pathLeast    = data - maxMethod - maxRequestID - maxHost - maxCaller - maxForwarded
)

// Texts of an event, in the order in which they lie in its data.
const (
	method = iota
	requestID
	host
	caller
	forwarded
	path
	agent
	texts
)

// Bits of an event.
const (
	secure uint8 = 1 << iota
	clientSpan
	unrouted
	shadowAllow
)

// event is a Request with fixed size and without pointers, so that the garbage
// collector never looks at a ring of them.
type event struct {
	meta
	data [data]byte
}

// meta is an event without its texts.
type meta struct {
	start, upstreamStart, firstByte, upstreamEnd, end int64

	in, out  uint64
	trace    Trace
	listener uint32 // numbers of entries
	route    uint32
	cluster  uint32
	flags    Flags

	vni, from, to uint32 // network id and identities
	rule, shadow  uint32 // numbers of entries

	source, local, upstream          [16]byte
	sourcePort, localPort, upstrPort uint16
	families                         uint8 // two bits each for source, local, upstream: see setAddress

	status   uint16
	retries  uint16
	grpc     int8
	protocol Protocol
	bits     uint8
	cut      uint8 // a bit for each text that was longer
	side     Side
	tier     policy.Tier
	drop     Drop
	ends     [texts]uint16
}

// fill copies r. Every field is written, because the event was used before.
func (e *event) fill(r *Request) {
	t := r.Table
	e.start, e.upstreamStart, e.firstByte, e.upstreamEnd, e.end = r.Start, r.UpstreamStart, r.FirstByte, r.UpstreamEnd, r.End
	e.in, e.out = r.In, r.Out
	e.trace = r.Trace
	e.listener = at(t.listeners, r.Listener).number
	e.route = at(t.routes, r.Route).number
	e.cluster = at(t.clusters, r.Cluster).number
	e.flags = r.Flags
	e.families = 0
	e.source, e.sourcePort = e.setAddress(r.Source, 0)
	e.local, e.localPort = e.setAddress(r.Local, 2)
	e.upstream, e.upstrPort = e.setAddress(r.Upstream, 4)
	e.status = uint16(r.Status)
	e.retries = uint16(min(max(r.Retries, 0), 0xffff))
	e.grpc = int8(min(max(r.GRPC, None), 127))
	e.protocol = r.Protocol
	e.bits = 0
	if r.Secure {
		e.bits |= secure
	}
	if t.traced && r.Upstream.IsValid() {
		e.bits |= clientSpan
	}
	e.fillMesh(r)
	e.cut = 0
	n := e.put(method, 0, maxMethod, r.Method)
	n = e.put(requestID, n, maxRequestID, r.RequestID)
	n = e.put(host, n, maxHost, r.Host)
	n = e.put(caller, n, maxCaller, r.Caller)
	n = e.put(forwarded, n, maxForwarded, r.Forwarded)
	n = e.put(path, n, data, r.Path)
	e.put(agent, n, maxAgent, r.Agent)
}

func (e *event) fillMesh(r *Request) {
	m, t := &r.Mesh, r.Table
	e.side, e.tier, e.drop, e.vni, e.from, e.to = m.Side, m.Tier, m.Drop, m.VNI, uint32(m.Source), uint32(m.Destination)
	e.rule, e.shadow = 0, 0
	if m.Side == NoSide {
		return
	}
	if x := t.rules[m.Rule]; x != nil {
		e.rule = x.number
	}
	if x := t.rules[m.Shadow.ID]; x != nil && m.Shadow.ID != "" {
		e.shadow = x.number
	}
	if m.Shadow.Allow {
		e.bits |= shadowAllow
	}
	if r.Route >= t.ways {
		e.bits |= unrouted
	}
}

// copy copies from, without what is left in its data of earlier events.
func (e *event) copy(from *event) {
	e.meta = from.meta
	copy(e.data[:from.ends[texts-1]], from.data[:])
}

// put copies at most limit bytes of text to n, and says where it ends.
func (e *event) put(which, n, limit int, text []byte) int {
	room := min(limit, data-n)
	if len(text) > room {
		e.cut |= 1 << which
		text = text[:room]
	}
	n += copy(e.data[n:], text)
	e.ends[which] = uint16(n)
	return n
}

// text is one of the texts.
func (e *event) text(which int) []byte {
	from := uint16(0)
	if which > 0 {
		from = e.ends[which-1]
	}
	return e.data[from:e.ends[which]]
}

// setAddress remembers of which family it is: 0 none, 1 IPv4, 2 IPv6.
func (e *event) setAddress(a netip.AddrPort, shift int) ([16]byte, uint16) {
	if !a.IsValid() {
		return [16]byte{}, 0
	}
	family := uint8(2)
	if ip := a.Addr(); ip.Is4() || ip.Is4In6() {
		family = 1
	}
	e.families |= family << shift
	return a.Addr().As16(), a.Port()
}

func (e *event) address(a [16]byte, port uint16, shift int) netip.AddrPort {
	switch ip := netip.AddrFrom16(a); e.families >> shift & 3 {
	case 1:
		return netip.AddrPortFrom(ip.Unmap(), port)
	case 2:
		return netip.AddrPortFrom(ip, port)
	}
	return netip.AddrPort{}
}

func (e *event) sourceAddress() netip.AddrPort   { return e.address(e.source, e.sourcePort, 0) }
func (e *event) localAddress() netip.AddrPort    { return e.address(e.local, e.localPort, 2) }
func (e *event) upstreamAddress() netip.AddrPort { return e.address(e.upstream, e.upstrPort, 4) }
