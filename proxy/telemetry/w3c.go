package telemetry

import "moire.dev/moire/proxy/message"

// W3C Trace Context, level 1 and 2. https://www.w3.org/TR/trace-context-2/

const (
	parentLength    = 55 // of version 00
	mostStateList   = 32 // members of a tracestate
	mostStateKey    = 256
	mostStateValue  = 256
	w3cFlagSampled  = 1
	w3cFlagRandom   = 2
	bitsTraceState  = uint64(1) << message.Tracestate
	bitsTraceParent = uint64(1) << message.Traceparent
)

// parseW3C reads traceparent into tr, strictly: anything that is not exactly as
// the standard has it is no context. Then, and when the tracestate cannot be
// read, tr remembers that these fields must not go on.
func parseW3C(h *message.Head, tr *Trace) bool {
	v, n := only(h, message.Traceparent)
	if n == 0 {
		if _, n := only(h, message.Tracestate); n > 0 {
			tr.bits |= foreign
		}
		return false
	}
	if n != 1 || !parseParent(v, tr) {
		*tr = Trace{bits: foreign}
		return false
	}
	if !validState(h) {
		tr.bits |= foreign
	}
	return true
}

// parseParent reads version-traceid-parentid-flags. Of a version that is not
// known yet the fields of version 00 are believed, when they are there.
func parseParent(v []byte, tr *Trace) bool {
	if len(v) < parentLength || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return false
	}
	var version, flags [1]byte
	if !parseHex(version[:], v[:2]) || version[0] == 0xff {
		return false
	}
	if len(v) > parentLength && (version[0] == 0 || v[parentLength] != '-') {
		return false
	}
	if !parseHex(tr.ID[:], v[3:35]) || !parseHex(tr.Parent[:], v[36:52]) || !parseHex(flags[:], v[53:55]) {
		return false
	}
	if tr.ID == ([16]byte{}) || tr.Parent == ([8]byte{}) {
		return false
	}
	tr.bits = decided
	if flags[0]&w3cFlagSampled != 0 {
		tr.bits |= sampled
	}
	if flags[0]&w3cFlagRandom != 0 {
		tr.bits |= random
	}
	return true
}

// validState: all tracestate fields together are a list that the standard
// allows. It is passed on as it came.
func validState(h *message.Head) bool {
	members := 0
	for i := range h.Fields {
		if h.Fields[i].ID != message.Tracestate {
			continue
		}
		v := h.Fields[i].Value
		for start := 0; start <= len(v); {
			end := start
			for end < len(v) && v[end] != ',' {
				end++
			}
			if m := trimBlanks(v[start:end]); len(m) > 0 {
				if members++; members > mostStateList || !validMember(m) {
					return false
				}
			}
			start = end + 1
		}
	}
	return true
}

func trimBlanks(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}

// validMember: key=value.
func validMember(m []byte) bool {
	eq := 0
	for eq < len(m) && m[eq] != '=' {
		if !stateKeyByte(m[eq], eq == 0) {
			return false
		}
		eq++
	}
	if eq == 0 || eq > mostStateKey || eq == len(m) {
		return false
	}
	value := m[eq+1:]
	if len(value) == 0 || len(value) > mostStateValue {
		return false
	}
	for _, c := range value {
		if c < 0x20 || c > 0x7e || c == '=' {
			return false
		}
	}
	return true
}

func stateKeyByte(c byte, first bool) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		return true
	case first:
		return false
	}
	return c == '_' || c == '-' || c == '*' || c == '/' || c == '@'
}

// injectW3C writes version 00, the only one there is.
func injectW3C(h *message.Head, tr *Trace, arena []byte) []byte {
	if tr.bits&foreign != 0 {
		remove(h, bitsTraceParent|bitsTraceState)
	}
	from := len(arena)
	arena = append(arena, "00-"...)
	arena = appendHex(arena, tr.ID[:])
	arena = append(arena, '-')
	arena = appendHex(arena, tr.Client[:])
	flags := byte('0')
	if tr.bits&sampled != 0 {
		flags |= w3cFlagSampled
	}
	if tr.bits&random != 0 {
		flags |= w3cFlagRandom
	}
	arena = append(arena, '-', '0', flags)
	set(h, message.Traceparent, arena[from:len(arena):len(arena)])
	return arena
}
