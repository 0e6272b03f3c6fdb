package hpack

import "moire.dev/moire/proxy/message"

// Pseudo is a pseudo-header field (RFC 9113, 8.3).
type Pseudo uint8

// Pseudo-header fields. Unknown is a name that starts with a colon and is none
// of the others.
const (
	Regular Pseudo = iota // not a pseudo-header field
	Authority
	Method
	Path
	Scheme
	Status
	Protocol // RFC 8441
	Unknown
)

// staticLast is the last index of the static table.
const staticLast = 61

// static is the static table (RFC 7541, Appendix A).
var static = [staticLast + 1]struct{ name, value string }{
	1: {":authority", ""}, 2: {":method", "GET"}, 3: {":method", "POST"}, 4: {":path", "/"},
	5: {":path", "/index.html"}, 6: {":scheme", "http"}, 7: {":scheme", "https"},
	8: {":status", "200"}, 9: {":status", "204"}, 10: {":status", "206"}, 11: {":status", "304"},
	12: {":status", "400"}, 13: {":status", "404"}, 14: {":status", "500"},
	15: {"accept-charset", ""}, 16: {"accept-encoding", "gzip, deflate"}, 17: {"accept-language", ""},
	18: {"accept-ranges", ""}, 19: {"accept", ""}, 20: {"access-control-allow-origin", ""}, 21: {"age", ""},
	22: {"allow", ""}, 23: {"authorization", ""}, 24: {"cache-control", ""}, 25: {"content-disposition", ""},
	26: {"content-encoding", ""}, 27: {"content-language", ""}, 28: {"content-length", ""},
	29: {"content-location", ""}, 30: {"content-range", ""}, 31: {"content-type", ""}, 32: {"cookie", ""},
	33: {"date", ""}, 34: {"etag", ""}, 35: {"expect", ""}, 36: {"expires", ""}, 37: {"from", ""}, 38: {"host", ""},
	39: {"if-match", ""}, 40: {"if-modified-since", ""}, 41: {"if-none-match", ""}, 42: {"if-range", ""},
	43: {"if-unmodified-since", ""}, 44: {"last-modified", ""}, 45: {"link", ""}, 46: {"location", ""},
	47: {"max-forwards", ""}, 48: {"proxy-authenticate", ""}, 49: {"proxy-authorization", ""}, 50: {"range", ""},
	51: {"referer", ""}, 52: {"refresh", ""}, 53: {"retry-after", ""}, 54: {"server", ""}, 55: {"set-cookie", ""},
	56: {"strict-transport-security", ""}, 57: {"transfer-encoding", ""}, 58: {"user-agent", ""}, 59: {"vary", ""},
	60: {"via", ""}, 61: {"www-authenticate", ""},
}

// code is a name that needs no bytes of its own: an index of the static table,
// codeProtocol, or codeKnown plus a message.ID. codeNone is any other name.
type code uint8

const (
	codeNone     code = 0
	codeProtocol code = staticLast + 1
	codeKnown    code = 64
	codes             = int(codeKnown) + message.Count
)

// constant is what is known of a code's name beforehand.
type constant struct {
	name   []byte
	id     message.ID
	pseudo Pseudo
}

var (
	constants = makeConstants()
	// byID is the code of each known name.
	byID = makeByID()
	// staticFields is the static table as fields.
	staticFields = makeStaticFields()
	// staticNames finds the static names that have no message.ID.
	staticNames = makeStaticNames()
)

func makeConstants() (t [codes]constant) {
	for i := 1; i <= staticLast; i++ {
		t[i] = constantOf(static[i].name)
	}
	t[codeProtocol] = constantOf(":protocol")
	for id := message.Other + 1; int(id) < message.Count; id++ {
		t[codeKnown+code(id)] = constantOf(id.String())
	}
	return t
}

func constantOf(name string) constant {
	return constant{name: []byte(name), id: message.Known(name), pseudo: pseudoOf(name)}
}

func makeByID() (t [message.Count]code) {
	for id := message.Other + 1; int(id) < message.Count; id++ {
		t[id] = codeKnown + code(id)
	}
	for i := staticLast; i > 0; i-- {
		if id := message.Known(static[i].name); id != message.Other {
			t[id] = code(i)
		}
	}
	return t
}

func makeStaticFields() (t [staticLast + 1]Field) {
	for i := 1; i <= staticLast; i++ {
		k := &constants[i]
		t[i] = Field{Name: k.name[:len(k.name):len(k.name)], Value: []byte(static[i].value), ID: k.id, Pseudo: k.pseudo}
	}
	return t
}

// makeStaticNames is a table by hash with linear probing.
func makeStaticNames() (t [128]code) {
	for i := 1; i <= staticLast; i++ {
		name := static[i].name
		if message.Known(name) != message.Other || name[0] == ':' {
			continue
		}
		s := staticSlot(name)
		for t[s] != codeNone {
			s = (s + 1) % uint32(len(t))
		}
		t[s] = code(i)
	}
	return t
}

func staticSlot[T string | []byte](name T) uint32 {
	return (uint32(len(name))*7 + uint32(name[0])*31 + uint32(name[len(name)-1])*17 + uint32(name[len(name)/2])*13) % 128
}

// codeOf is the code of a name, whose id the caller knows.
func codeOf(name []byte, id message.ID) code {
	if id != message.Other {
		return byID[id]
	}
	if len(name) == 0 {
		return codeNone
	}
	for s := staticSlot(name); staticNames[s] != codeNone; s = (s + 1) % 128 {
		if k := staticNames[s]; static[k].name == string(name) {
			return k
		}
	}
	return codeNone
}

// pseudoOf says which pseudo-header field a name is.
func pseudoOf[T string | []byte](name T) Pseudo {
	if len(name) == 0 || name[0] != ':' {
		return Regular
	}
	switch string(name) {
	case ":authority":
		return Authority
	case ":method":
		return Method
	case ":path":
		return Path
	case ":scheme":
		return Scheme
	case ":status":
		return Status
	case ":protocol":
		return Protocol
	}
	return Unknown
}

// pseudoCodes is the code of each pseudo-header field.
var pseudoCodes = [...]code{Authority: 1, Method: 2, Path: 4, Scheme: 6, Status: 8, Protocol: codeProtocol}
