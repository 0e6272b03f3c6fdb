package message

// ID is a known field name, so that nobody compares strings on the hot path.
type ID uint8

// Known names. Other is every name that is not here.
const (
	Other ID = iota
	Host
	Connection
	KeepAlive
	ProxyConnection
	TransferEncoding
	ContentLength
	TE
	Trailer
	Upgrade
	Expect
	HTTP2Settings
	ContentType
	ContentEncoding
	UserAgent
	Accept
	AcceptEncoding
	Cookie
	SetCookie
	Authorization
	Date
	Server
	Via
	Location
	Origin
	Vary
	Range
	Forwarded
	XForwardedFor
	XForwardedProto
	XForwardedHost
	XRequestID
	Traceparent
	Tracestate
	B3
	XB3TraceID
	XB3SpanID
	XB3ParentSpanID
	XB3Sampled
	XB3Flags
	GRPCStatus
	GRPCMessage
	GRPCTimeout
	GRPCEncoding
	AccessControlRequestMethod
	AccessControlRequestHeaders
	last
)

// Count is the length of a table by ID, Other included.
const Count = int(last)

var names = [last]string{
	Host: "host", Connection: "connection", KeepAlive: "keep-alive", ProxyConnection: "proxy-connection",
	TransferEncoding: "transfer-encoding", ContentLength: "content-length", TE: "te", Trailer: "trailer",
	Upgrade: "upgrade", Expect: "expect", HTTP2Settings: "http2-settings", ContentType: "content-type",
	ContentEncoding: "content-encoding", UserAgent: "user-agent", Accept: "accept", AcceptEncoding: "accept-encoding",
	Cookie: "cookie", SetCookie: "set-cookie", Authorization: "authorization", Date: "date", Server: "server", Via: "via",
	Location: "location", Origin: "origin", Vary: "vary", Range: "range", Forwarded: "forwarded",
	XForwardedFor: "x-forwarded-for", XForwardedProto: "x-forwarded-proto", XForwardedHost: "x-forwarded-host",
	XRequestID: "x-request-id", Traceparent: "traceparent", Tracestate: "tracestate", B3: "b3",
	XB3TraceID: "x-b3-traceid", XB3SpanID: "x-b3-spanid", XB3ParentSpanID: "x-b3-parentspanid",
	XB3Sampled: "x-b3-sampled", XB3Flags: "x-b3-flags",
	GRPCStatus: "grpc-status", GRPCMessage: "grpc-message", GRPCTimeout: "grpc-timeout", GRPCEncoding: "grpc-encoding",
	AccessControlRequestMethod: "access-control-request-method", AccessControlRequestHeaders: "access-control-request-headers",
}

// String is the name in lower case; empty for Other.
func (id ID) String() string { return names[id] }

// slots is a table by hash of the known names, without collisions: made once,
// at start, from names.
var slots = func() (t [512]ID) {
	for id := Host; id < last; id++ {
		s := hash(names[id])
		if t[s] != Other {
			panic("message: two known names have one hash: " + names[id] + " and " + names[t[s]])
		}
		t[s] = id
	}
	return t
}()

func hash[T string | []byte](name T) uint32 {
	n := len(name)
	if n == 0 {
		return 0
	}
	return (uint32(n)*259 + uint32(name[0])*1045 + uint32(name[n-1])*483 + uint32(name[n/2])*2030 + uint32(name[n/3])*3117) >> 3 % 512
}

// Identify is the ID of a name in lower case.
func Identify(name []byte) ID {
	id := slots[hash(name)]
	if id != Other && names[id] == string(name) {
		return id
	}
	return Other
}

// Known is Identify for a string.
func Known(name string) ID {
	id := slots[hash(name)]
	if id != Other && names[id] == name {
		return id
	}
	return Other
}
