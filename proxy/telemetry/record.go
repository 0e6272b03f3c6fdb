package telemetry

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/policy"
)

// told is an event with what only the collector knows.
type told struct {
	event
	offset   int64  // wall clock minus Options.Now, nanoseconds
	id       uint64 // among events of its worker
	worker   int
	listener string
	route    name
	cluster  string
	// In the mesh: who takes part, nil: nobody knows; and what decided.
	source, destination *who
	rule, shadow        string
}

// sayer turns events into what others read.
type sayer struct {
	name string // of the node, or of the proxy where there is none
	boot uint32
}

// destinationAddress is where it went: the endpoint, or what was asked for.
func (k *told) destinationAddress() netip.AddrPort {
	if a := k.upstreamAddress(); a.IsValid() && k.side != In {
		return a
	}
	return k.localAddress()
}

// wall is a moment of the worker's clock as time.
func (k *told) wall(moment int64) time.Time { return time.Unix(0, moment+k.offset).UTC() }

// after is the time from one moment to a later one; 0 when it never came to one
// of them.
func after(from, to int64) time.Duration {
	if from == 0 || to <= from {
		return 0
	}
	return time.Duration(to - from)
}

func (k *told) total() time.Duration     { return after(k.start, k.end) }
func (k *told) firstWait() time.Duration { return after(k.start, k.firstByte) }
func (k *told) tried() time.Duration     { return after(k.upstreamStart, k.upstreamEnd) }

// record is k in the schema of records.
func (s sayer) record(k *told) record.Record {
	r := record.Record{
		ID: string(s.appendID(nil, k)), Kind: record.Ended, Time: k.wall(k.end), Start: k.wall(k.start), Node: s.name, Observer: record.AtProxy,
		Protocol: "tcp", Verdict: record.Allow,
		ForwardBytes: k.in, ReplyBytes: k.out,
		Route: k.routeName(), Latency: k.total(),
	}
	if k.flags&Denied != 0 {
		r.Kind, r.Verdict = record.Denied, record.Deny
	}
	source, local, upstream := k.sourceAddress(), k.localAddress(), k.destinationAddress()
	r.Source, r.Destination = k.party(source, k.source, k.text(caller), k.from), k.party(upstream, k.destination, nil, k.to)
	if k.side != NoSide {
		k.policy(&r)
	}
	if local.IsValid() {
		r.ServiceAddress = local.String()
	}
	if k.trace.ID != ([16]byte{}) {
		r.TraceID = hex.EncodeToString(k.trace.ID[:])
	}
	r.Request = k.request()
	return r
}

// routeName is empty where no route was chosen.
func (k *told) routeName() string {
	if k.bits&unrouted != 0 {
		return ""
	}
	return k.route.name
}

// party is one side. Who proved who he is, is that; else the network says it.
func (k *told) party(at netip.AddrPort, w *who, proven []byte, number uint32) record.End {
	e := record.End{VNI: k.vni, Address: at.Addr(), Number: number}
	if w != nil {
		e = w.end
	}
	e.Port = at.Port()
	if len(proven) > 0 {
		e.Identity = clean(proven)
	}
	return e
}

var directions = [...]policy.Direction{Out: policy.Egress, In: policy.Ingress}

// policy fills in what decided.
func (k *told) policy(r *record.Record) {
	r.Direction, r.Rule, r.Drop = directions[k.side].String(), k.rule, k.drop.String()
	if k.rule != "" {
		r.Tier = k.tier.String()
	}
	if k.shadow != "" {
		r.ShadowRule, r.ShadowVerdict = k.shadow, record.Deny
		if k.bits&shadowAllow != 0 {
			r.ShadowVerdict = record.Allow
		}
	}
	if k.side == Out && k.bits&unrouted == 0 {
		r.Service = serviceOf(k.cluster)
	}
}

func (k *told) request() *record.Request {
	q := &record.Request{
		ID: clean(k.text(requestID)), Protocol: k.protocol.String(), Secure: k.bits&secure != 0,
		Method: clean(k.text(method)), Host: clean(k.text(host)), Path: clean(k.text(path)),
		Status: int(k.status), Flags: k.flags.Names(),
		Listener: k.listener, Rule: k.ruleName(), Cluster: k.cluster, Retries: int(k.retries),
		FirstByte: k.firstWait(), Upstream: k.tried(),
		SpanID: spanText(k.trace.Server), ParentID: spanText(k.trace.Parent),
		Agent: clean(k.text(agent)), Forwarded: clean(k.text(forwarded)),
	}
	if k.grpc >= 0 {
		status := int(k.grpc)
		q.GRPCStatus = &status
	}
	for which := range texts {
		if k.cut>>which&1 != 0 {
			q.Cut = append(q.Cut, textNames[which])
		}
	}
	return q
}

// ruleName is empty where no route was chosen.
func (k *told) ruleName() string {
	if k.bits&unrouted != 0 {
		return ""
	}
	return k.route.rule
}

// textNames are the fields of a record that the texts of an event become.
var textNames = [texts]string{method: "method", requestID: "id", host: "host", caller: "caller", forwarded: "forwarded", path: "path", agent: "agent"}

func spanText(id [8]byte) string {
	if id == ([8]byte{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// appendID is unique among records of one proxy.
func (s sayer) appendID(dst []byte, k *told) []byte {
	dst = strconv.AppendUint(dst, uint64(s.boot), 16)
	dst = append(dst, '-')
	dst = strconv.AppendInt(dst, int64(k.worker), 16)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, k.id, 16)
}

// clean is text that was sent by others, safe to be shown anywhere: what is no
// printable character is written \xNN.
func clean(text []byte) string {
	if plain(text) {
		return string(text)
	}
	return string(appendClean(make([]byte, 0, len(text)+16), text))
}

// plain: only printable ASCII.
func plain(text []byte) bool {
	for _, c := range text {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}

func appendClean(dst, text []byte) []byte {
	for i := 0; i < len(text); {
		c := text[i]
		if c >= 0x20 && c < 0x7f {
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		if c < utf8.RuneSelf || !strconv.IsPrint(r) || r == utf8.RuneError && n == 1 {
			for _, c := range text[i : i+n] {
				dst = append(dst, '\\', 'x', lowerHex[c>>4], lowerHex[c&15])
			}
		} else {
			dst = append(dst, text[i:i+n]...)
		}
		i += n
	}
	return dst
}

func appendAddress(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(dst, '-')
	}
	return a.AppendTo(dst)
}
