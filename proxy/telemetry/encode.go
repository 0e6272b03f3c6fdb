package telemetry

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"moire.dev/moire/flow/record"
)

// appendJSON writes what json.Marshal writes of record(k), and a line break,
// without making the Record: this is done for every request.
func (s sayer) appendJSON(dst []byte, k *told) []byte {
	dst = append(dst, `{"id":"`...)
	dst = s.appendID(dst, k)
	if k.flags&Denied != 0 {
		dst = append(dst, `","kind":"denied"`...)
	} else {
		dst = append(dst, `","kind":"ended"`...)
	}
	dst = appendMoment(dst, `,"time":"`, k.wall(k.end))
	dst = appendMoment(dst, `","start":"`, k.wall(k.start))
	dst = append(dst, `","node":`...)
	dst = appendQuoted(dst, s.name)
	dst = append(dst, `,"observer":"proxy","protocol":"tcp"`...)
	local := k.localAddress()
	dst = k.appendEnd(dst, `,"source":`, k.sourceAddress(), k.source, k.text(caller), k.from)
	dst = k.appendEnd(dst, `,"destination":`, k.destinationAddress(), k.destination, nil, k.to)
	if k.flags&Denied != 0 {
		dst = append(dst, `,"verdict":"deny"`...)
	} else {
		dst = append(dst, `,"verdict":"allow"`...)
	}
	if k.side != NoSide {
		dst = k.appendPolicy(dst)
	}
	dst = append(dst, `,"forwardPackets":0,"forwardBytes":`...)
	dst = strconv.AppendUint(dst, k.in, 10)
	dst = append(dst, `,"replyPackets":0,"replyBytes":`...)
	dst = strconv.AppendUint(dst, k.out, 10)
	if k.side == Out && k.bits&unrouted == 0 {
		dst = appendText(dst, `,"service":`, serviceOf(k.cluster))
	}
	if local.IsValid() {
		dst = append(dst, `,"serviceAddress":"`...)
		dst = local.AppendTo(dst)
		dst = append(dst, '"')
	}
	dst = appendText(dst, `,"route":`, k.routeName())
	dst = appendNumber(dst, `,"latency":`, int64(k.total()))
	if k.trace.ID != ([16]byte{}) {
		dst = append(dst, `,"traceID":"`...)
		dst = appendHex(dst, k.trace.ID[:])
		dst = append(dst, '"')
	}
	dst = k.appendRequest(dst)
	return append(dst, '}', '\n')
}

func (k *told) appendRequest(dst []byte) []byte {
	dst = append(dst, `,"request":{`...)
	if id := k.text(requestID); len(id) > 0 {
		dst = appendForeign(dst, `"id":`, id)
		dst = append(dst, ',')
	}
	dst = append(dst, `"protocol":"`...)
	dst = append(dst, k.protocol.String()...)
	dst = append(dst, '"')
	if k.bits&secure != 0 {
		dst = append(dst, `,"secure":true`...)
	}
	dst = appendForeign(dst, `,"method":`, k.text(method))
	dst = appendForeign(dst, `,"host":`, k.text(host))
	dst = appendForeign(dst, `,"path":`, k.text(path))
	dst = appendNumber(dst, `,"status":`, int64(k.status))
	if k.grpc >= 0 {
		dst = append(dst, `,"grpcStatus":`...)
		dst = strconv.AppendInt(dst, int64(k.grpc), 10)
	}
	if k.flags != 0 {
		dst = appendNames(dst, `,"flags":[`, flagNames[:], uint64(k.flags))
	}
	dst = appendText(dst, `,"listener":`, k.listener)
	dst = appendText(dst, `,"rule":`, k.ruleName())
	dst = appendText(dst, `,"cluster":`, k.cluster)
	dst = appendNumber(dst, `,"retries":`, int64(k.retries))
	dst = appendNumber(dst, `,"firstByte":`, int64(k.firstWait()))
	dst = appendNumber(dst, `,"upstream":`, int64(k.tried()))
	dst = appendSpan(dst, `,"spanID":"`, k.trace.Server)
	dst = appendSpan(dst, `,"parentID":"`, k.trace.Parent)
	dst = appendForeign(dst, `,"agent":`, k.text(agent))
	dst = appendForeign(dst, `,"forwarded":`, k.text(forwarded))
	if k.cut != 0 {
		dst = appendNames(dst, `,"cut":[`, textNames[:], uint64(k.cut))
	}
	return append(dst, '}')
}

func appendMoment(dst []byte, key string, t time.Time) []byte {
	dst = append(dst, key...)
	return t.AppendFormat(dst, time.RFC3339Nano)
}

// appendPolicy writes what decided.
func (k *told) appendPolicy(dst []byte) []byte {
	dst = appendText(dst, `,"rule":`, k.rule)
	if k.rule != "" {
		dst = appendText(dst, `,"tier":`, k.tier.String())
	}
	dst = appendText(dst, `,"direction":`, directions[k.side].String())
	if k.shadow != "" {
		verdict := record.Deny
		if k.bits&shadowAllow != 0 {
			verdict = record.Allow
		}
		dst = appendText(dst, `,"shadowVerdict":`, verdict)
		dst = appendText(dst, `,"shadowRule":`, k.shadow)
	}
	return appendText(dst, `,"drop":`, k.drop.String())
}

func (k *told) appendEnd(dst []byte, key string, a netip.AddrPort, w *who, proven []byte, number uint32) []byte {
	dst = append(dst, key...)
	if w == nil {
		dst = append(dst, `{"vni":`...)
		dst = strconv.AppendUint(dst, uint64(k.vni), 10)
		dst = append(dst, `,"address":"`...)
		if a.IsValid() {
			dst = a.Addr().AppendTo(dst)
		}
		dst = append(dst, '"')
		dst = appendNumber(dst, `,"port":`, int64(a.Port()))
		dst = appendForeign(dst, `,"identity":`, proven)
		dst = appendNumber(dst, `,"identityNumber":`, int64(number))
		return append(dst, '}')
	}
	before, after := w.written()
	dst = append(dst, before...)
	dst = appendNumber(dst, `,"port":`, int64(a.Port()))
	dst = appendText(dst, `,"workload":`, w.end.Workload)
	if len(proven) > 0 {
		dst = appendForeign(dst, `,"identity":`, proven)
	} else {
		dst = appendText(dst, `,"identity":`, w.end.Identity)
	}
	return append(dst, after...)
}

// written is an End in JSON before its port and after its identity.
func (w *who) written() (before, after []byte) {
	if w.json[0] != nil {
		return w.json[0], w.json[1]
	}
	e := &w.end
	b := []byte{'{'}
	for _, f := range []struct{ key, value string }{{`"domain":`, e.Domain}, {`"project":`, e.Project}, {`"network":`, e.Network}} {
		if f.value != "" {
			b = append(appendText(b, f.key, f.value), ',')
		}
	}
	b = strconv.AppendUint(append(b, `"vni":`...), uint64(e.VNI), 10)
	b = append(e.Address.AppendTo(append(b, `,"address":"`...)), '"')
	a := appendNumber(nil, `,"identityNumber":`, int64(e.Number))
	if len(e.Labels) > 0 {
		a = append(a, `,"labels":{`...)
		for i, key := range slices.Sorted(maps.Keys(e.Labels)) {
			if i > 0 {
				a = append(a, ',')
			}
			a = appendQuoted(append(appendQuoted(a, key), ':'), e.Labels[key])
		}
		a = append(a, '}')
	}
	a = append(appendText(a, `,"node":`, e.Node), '}')
	w.json = [2][]byte{b, a}
	return b, a
}

func appendNumber(dst []byte, key string, n int64) []byte {
	if n == 0 {
		return dst
	}
	dst = append(dst, key...)
	return strconv.AppendInt(dst, n, 10)
}

func appendText(dst []byte, key, text string) []byte {
	if text == "" {
		return dst
	}
	return appendQuoted(append(dst, key...), text)
}

func appendSpan(dst []byte, key string, id [8]byte) []byte {
	if id == ([8]byte{}) {
		return dst
	}
	dst = append(dst, key...)
	dst = appendHex(dst, id[:])
	return append(dst, '"')
}

// appendNames lists the names whose bit is set.
func appendNames(dst []byte, key string, names []string, set uint64) []byte {
	dst = append(dst, key...)
	for i, n := range names {
		if set>>i&1 != 0 {
			dst = append(dst, '"')
			dst = append(dst, n...)
			dst = append(dst, '"', ',')
		}
	}
	dst[len(dst)-1] = ']'
	return dst
}

// appendForeign writes text of others: clean, then quoted.
func appendForeign(dst []byte, key string, text []byte) []byte {
	if len(text) == 0 {
		return dst
	}
	dst = append(dst, key...)
	if !plain(text) {
		var room [256]byte
		text = appendClean(room[:0], text)
	}
	return appendQuoted(dst, text)
}

// appendQuoted writes a JSON string of text that is valid UTF-8. Like
// json.Marshal it also escapes what HTML and JavaScript would take for their
// own.
func appendQuoted[T string | []byte](dst []byte, text T) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' && c != 0xe2 {
			continue
		}
		if c == 0xe2 && !(i+2 < len(text) && text[i+1] == 0x80 && text[i+2]&^1 == 0xa8) {
			continue
		}
		dst = append(dst, text[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case 0xe2: // U+2028 and U+2029 end a line in JavaScript
			dst = append(dst, `\u202`...)
			dst = append(dst, lowerHex[text[i+2]&15])
			i += 2
			from = i + 1
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, lowerHex[c>>4], lowerHex[c&15])
		}
	}
	dst = append(dst, text[from:]...)
	return append(dst, '"')
}

// appendLine writes k like Envoy's default access log: start, request line,
// status, flags, bytes of the request and of the answer, milliseconds in all and
// until the endpoint's answer began, then x-forwarded-for, user-agent,
// x-request-id, authority and endpoint.
func (s sayer) appendLine(dst []byte, k *told) []byte {
	dst = append(dst, '[')
	dst = k.wall(k.start).AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = append(dst, `] "`...)
	dst = appendWord(dst, k.text(method))
	dst = append(dst, ' ')
	dst = appendWord(dst, k.text(path))
	if k.cut>>path&1 != 0 {
		dst = append(dst, "..."...)
	}
	dst = append(dst, ' ')
	dst = append(dst, k.protocol.String()...)
	dst = append(dst, `" `...)
	dst = strconv.AppendUint(dst, uint64(k.status), 10)
	dst = append(dst, ' ')
	dst = appendFlags(dst, k.flags)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, k.in, 10)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, k.out, 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, k.total().Milliseconds(), 10)
	dst = append(dst, ' ')
	if waited := after(k.upstreamStart, k.firstByte); waited > 0 {
		dst = strconv.AppendInt(dst, waited.Milliseconds(), 10)
	} else {
		dst = append(dst, '-')
	}
	for _, which := range [...]int{forwarded, agent, requestID, host} {
		dst = append(dst, ` "`...)
		dst = appendWord(dst, k.text(which))
		dst = append(dst, '"')
	}
	dst = append(dst, ` "`...)
	dst = appendAddress(dst, k.upstreamAddress())
	return append(dst, '"', '\n')
}

// appendWord writes text of others between quotes: nothing in it ends the
// quotes or the line.
func appendWord(dst, text []byte) []byte {
	if len(text) == 0 {
		return append(dst, '-')
	}
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20 || c > 0x7e:
			dst = append(dst, '\\', 'x', lowerHex[c>>4], lowerHex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
