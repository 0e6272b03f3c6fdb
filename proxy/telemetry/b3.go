package telemetry

import "moire.dev/moire/proxy/message"

// B3, in the one field b3 and in the fields x-b3-*.
// https://github.com/openzipkin/b3-propagation

const bitsB3 = uint64(1)<<message.XB3TraceID | 1<<message.XB3SpanID | 1<<message.XB3ParentSpanID | 1<<message.XB3Sampled | 1<<message.XB3Flags

// parseB3 reads b3 or, when there is none, x-b3-*. It can be that a decision is
// there but no trace; then it is in tr, and false is returned.
func parseB3(h *message.Head, tr *Trace) bool {
	keep := tr.bits & foreign
	found := false
	if v, n := only(h, message.B3); n > 0 {
		found = n == 1 && parseSingle(v, tr)
	} else {
		found = parseMulti(h, tr)
	}
	if !found {
		*tr = Trace{bits: tr.bits & (decided | sampled | debugged)}
	}
	tr.bits |= keep
	return found
}

// parseSingle reads traceid-spanid[-decision[-parentid]], or a decision alone.
func parseSingle(v []byte, tr *Trace) bool {
	if len(v) == 1 {
		decide(v, tr)
		return false
	}
	id := 16
	if len(v) > 32 && v[32] == '-' {
		id = 32
	}
	if len(v) < id+17 || v[id] != '-' || !parseTraceID(v[:id], tr) || !parseHex(tr.Parent[:], v[id+1:id+17]) || tr.Parent == ([8]byte{}) {
		return false
	}
	rest := v[id+17:]
	if len(rest) == 0 {
		return true
	}
	if len(rest) < 2 || rest[0] != '-' || !decide(rest[1:2], tr) {
		return undecide(tr)
	}
	var grandparent [8]byte
	if rest = rest[2:]; len(rest) > 0 && (rest[0] != '-' || !parseHex(grandparent[:], rest[1:])) {
		return undecide(tr)
	}
	return true
}

// undecide: what cannot be read as a whole decides nothing.
func undecide(tr *Trace) bool {
	tr.bits = 0
	return false
}

func parseMulti(h *message.Head, tr *Trace) bool {
	if v, n := only(h, message.XB3Flags); n == 1 && string(v) == "1" {
		tr.bits |= decided | sampled | debugged
	} else if v, n := only(h, message.XB3Sampled); n == 1 {
		decide(v, tr)
	}
	id, n := only(h, message.XB3TraceID)
	span, m := only(h, message.XB3SpanID)
	return n == 1 && m == 1 && parseTraceID(id, tr) && parseHex(tr.Parent[:], span) && tr.Parent != ([8]byte{})
}

// parseTraceID reads 8 or 16 bytes.
func parseTraceID(v []byte, tr *Trace) bool {
	if len(v) == 16 {
		tr.bits |= narrow
		return parseHex(tr.ID[8:], v) && tr.ID != ([16]byte{})
	}
	return parseHex(tr.ID[:], v) && tr.ID != ([16]byte{})
}

// decide reads a decision; true and false are from old libraries.
func decide(v []byte, tr *Trace) bool {
	switch string(v) {
	case "1", "true":
		tr.bits |= decided | sampled
	case "0", "false":
		tr.bits |= decided
	case "d":
		tr.bits |= decided | sampled | debugged
	default:
		return false
	}
	return true
}

// injectB3 writes the form that came, the many fields when none came.
func injectB3(h *message.Head, tr *Trace, arena []byte) []byte {
	from := len(arena)
	id := tr.ID[:]
	if tr.bits&narrow != 0 {
		id = tr.ID[8:]
	}
	decision := byte('0')
	if tr.bits&sampled != 0 {
		decision = '1'
	}
	_, n := only(h, message.B3)
	remove(h, bitsB3)
	if n > 0 {
		if tr.bits&debugged != 0 {
			decision = 'd'
		}
		remove(h, 1<<message.B3)
		arena = appendHex(arena, id)
		arena = append(arena, '-')
		arena = appendHex(arena, tr.Client[:])
		arena = append(arena, '-', decision, '-')
		arena = appendHex(arena, tr.Server[:])
		set(h, message.B3, arena[from:len(arena):len(arena)])
		return arena
	}
	arena = appendHex(arena, id)
	arena = appendHex(arena, tr.Client[:])
	arena = appendHex(arena, tr.Server[:])
	arena = append(arena, decision)
	v := arena[from:len(arena):len(arena)]
	n = 2 * len(id)
	set(h, message.XB3TraceID, v[:n:n])
	set(h, message.XB3SpanID, v[n:n+16:n+16])
	set(h, message.XB3ParentSpanID, v[n+16:n+32:n+32])
	if tr.bits&debugged != 0 {
		set(h, message.XB3Flags, v[n+32:])
	} else {
		set(h, message.XB3Sampled, v[n+32:])
	}
	return arena
}
