package telemetry

import "bytes"

// spanKinds are numbered as in OpenTelemetry.
type spanKinds uint8

const (
	serverKind spanKinds = 2 // the caller's request, as we saw it
	clientKind spanKinds = 3 // our last try
)

// span is what formats have in common.
type span struct {
	id, parent [8]byte
	name       []byte
	start, end int64 // nanoseconds since 1970
	failed     bool
}

// hasClientSpan: a try was made, and its endpoint was told of our span.
func (k *told) hasClientSpan() bool {
	return k.bits&clientSpan != 0 && k.trace.Client != ([8]byte{}) && k.upstreamStart != 0
}

func (k *told) span(kind spanKinds) span {
	s := span{id: k.trace.Server, parent: k.trace.Parent, start: k.start, end: k.end}
	if kind == clientKind {
		s.id, s.parent, s.start, s.end = k.trace.Client, k.trace.Server, k.upstreamStart, k.upstreamEnd
	}
	s.end = max(s.end, s.start)
	s.start += k.offset
	s.end += k.offset
	s.name = k.operation()
	s.failed = k.failed(kind)
	return s
}

// operation has few values: the method of HTTP, the service and method of gRPC,
// the protocol of what was passed through.
func (k *told) operation() []byte {
	switch {
	case k.grpc >= 0:
		return k.rpc()
	case k.protocol >= TCP:
		return []byte(k.protocol.String())
	}
	if m := k.text(method); knownMethod(m) {
		return m
	}
	return []byte("HTTP")
}

// rpc is service/method.
func (k *told) rpc() []byte {
	p, _, _ := bytes.Cut(k.text(path), []byte("?"))
	return bytes.TrimPrefix(p, []byte("/"))
}

// failed as the conventions have it: a server that is told of a mistake of its
// caller did not fail.
func (k *told) failed(kind spanKinds) bool {
	if k.grpc > 0 {
		switch {
		case kind == clientKind:
			return true
		case k.grpc == 2, k.grpc == 4, k.grpc == 12, k.grpc == 13, k.grpc == 14, k.grpc == 15:
			return true
		}
	}
	if k.status == 0 && k.protocol < TCP {
		return true
	}
	if kind == clientKind && k.flags&(UpstreamFailed|UpstreamReset|UpstreamClosed|UpstreamTimeout|UpstreamProtocolError) != 0 {
		return true
	}
	return k.status >= 500 || kind == clientKind && k.status >= 400
}

// knownMethod: those of RFC 9110 and RFC 5789; others could be made up.
func knownMethod(m []byte) bool {
	switch string(m) {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return true
	}
	return false
}

var grpcNames = [statuses]string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED", "other"}

// attribute of a span.
type attribute struct {
	key    string
	kind   attributeKind
	text   []byte
	number int64
	list   []string
}

type attributeKind uint8

const (
	isText attributeKind = iota
	isNumber
	isList
)

// attributes of one span; the memory is used again.
type attributes struct {
	all  []attribute
	room []byte
}

func (l *attributes) text(key string, v []byte) {
	if len(v) > 0 {
		l.all = append(l.all, attribute{key: key, text: v})
	}
}

// foreign is text of others, cleaned.
func (l *attributes) foreign(key string, v []byte) {
	if !plain(v) {
		from := len(l.room)
		l.room = appendClean(l.room, v)
		v = l.room[from:]
	}
	l.text(key, v)
}

func (l *attributes) name(key, v string) {
	if v != "" {
		from := len(l.room)
		l.room = append(l.room, v...)
		l.text(key, l.room[from:])
	}
}

func (l *attributes) number(key string, v int64) {
	l.all = append(l.all, attribute{key: key, kind: isNumber, number: v})
}

// of fills in the attributes of OpenTelemetry's conventions for HTTP and for
// RPC, version 1.45, and ours under moire.
func (l *attributes) of(k *told, kind spanKinds) {
	l.all, l.room = l.all[:0], l.room[:0]
	if k.protocol < TCP {
		l.http(k, kind)
	}
	if k.grpc >= 0 {
		l.name("rpc.system.name", "grpc")
		l.foreign("rpc.method", k.rpc())
		l.name("rpc.response.status_code", grpcNames[min(int(k.grpc), statuses-1)])
	}
	if k.failed(kind) {
		l.name("error.type", k.errorType())
	}
	if kind == clientKind {
		l.peer(k, kind)
		l.name("moire.cluster", k.cluster)
		return
	}
	l.peer(k, kind)
	l.foreign("moire.caller", k.text(caller))
	l.foreign("moire.request_id", k.text(requestID))
	l.name("moire.listener", k.listener)
	l.name("moire.route", k.route.name)
	l.name("moire.rule", k.route.rule)
	if k.flags != 0 {
		l.all = append(l.all, attribute{key: "moire.flags", kind: isList, list: k.flags.Names()})
	}
}

func (l *attributes) http(k *told, kind spanKinds) {
	m := k.text(method)
	if knownMethod(m) {
		l.text("http.request.method", m)
	} else {
		l.name("http.request.method", "_OTHER")
		l.foreign("http.request.method_original", m)
	}
	if k.status != 0 {
		l.number("http.response.status_code", int64(k.status))
	}
	scheme := "http"
	if k.bits&secure != 0 {
		scheme = "https"
	}
	if kind == clientKind {
		from := len(l.room)
		l.room = append(l.room, scheme...)
		l.room = append(l.room, "://"...)
		l.room = appendClean(l.room, k.text(host))
		l.room = appendClean(l.room, k.text(path))
		l.text("url.full", l.room[from:])
		if k.retries > 0 {
			l.number("http.request.resend_count", int64(k.retries))
		}
	} else {
		p, query, _ := bytes.Cut(k.text(path), []byte("?"))
		l.foreign("url.path", p)
		l.foreign("url.query", query)
		l.name("url.scheme", scheme)
		l.foreign("user_agent.original", k.text(agent))
		if f, _, _ := bytes.Cut(k.text(forwarded), []byte(",")); len(f) > 0 {
			l.foreign("client.address", f)
		}
		l.name("network.protocol.version", k.protocol.String()[len("HTTP/"):])
	}
	name, port := splitAuthority(k.text(host))
	l.foreign("server.address", name)
	if port > 0 {
		l.number("server.port", int64(port))
	}
}

func (l *attributes) peer(k *told, kind spanKinds) {
	peer := k.sourceAddress()
	if kind == clientKind {
		peer = k.upstreamAddress()
	}
	if peer.IsValid() {
		from := len(l.room)
		l.room = peer.Addr().AppendTo(l.room)
		l.text("network.peer.address", l.room[from:])
		l.number("network.peer.port", int64(peer.Port()))
	}
}

// errorType is the gRPC status, the HTTP status, or the first flag.
func (k *told) errorType() string {
	switch {
	case k.grpc > 0:
		return grpcNames[min(int(k.grpc), statuses-1)]
	case k.status >= 400:
		return digits(int(k.status))
	case k.flags != 0:
		return k.flags.Names()[0]
	}
	return "_OTHER"
}

// splitAuthority is host and port of host:port, [v6]:port or host; port 0:
// there is none.
func splitAuthority(a []byte) (host []byte, port int) {
	colon := bytes.LastIndexByte(a, ':')
	if colon < 0 || bytes.IndexByte(a[colon:], ']') >= 0 {
		return bytes.Trim(a, "[]"), 0
	}
	for _, c := range a[colon+1:] {
		if c < '0' || c > '9' || port > 6553 {
			return a, 0
		}
		port = port*10 + int(c-'0')
	}
	return bytes.Trim(a[:colon], "[]"), port
}
