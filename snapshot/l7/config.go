package l7

// Config is everything that one proxy must be. Never change one after it was
// handed out; build another.
type Config struct {
	// Name of this proxy in records, metrics and traces.
	Name string `json:"name"`
	// Workers that serve; 0: one for each core.
	Workers int `json:"workers,omitempty"`

	Listeners    []Listener    `json:"listeners"`
	Routes       []Route       `json:"routes,omitempty"`
	Clusters     []Cluster     `json:"clusters,omitempty"`
	Certificates []Certificate `json:"certificates,omitempty"`
	Telemetry    Telemetry     `json:"telemetry,omitzero"`
	// Mesh hangs the proxy on tenant networks; nil: it stands alone.
	Mesh *Mesh `json:"mesh,omitempty"`
	// Drain is how long a proxy that was told to stop waits for what goes on;
	// default 30s.
	Drain Duration `json:"drain,omitzero"`
}

// Protocol is what is spoken on a Listener or to a Cluster.
type Protocol string

// Protocols. HTTP1 and HTTP2 over TLS are chosen by ALPN; without TLS a
// listener with AutoHTTP takes both, told apart by the connection preface.
const (
	AutoHTTP Protocol = "http"
	HTTP1    Protocol = "http1"
	HTTP2    Protocol = "http2"
	// TLS passes a TLS connection through unopened; the SNI chooses.
	TLS Protocol = "tls"
	TCP Protocol = "tcp"
)

// Listener is one address that the proxy accepts connections on.
type Listener struct {
	Name string `json:"name"`
	// Address is host:port; an IPv6 host is in brackets.
	Address string `json:"address"`
	// View, when set, makes it a listener of the Mesh: it has no socket of its own,
	// but takes what Workloads with this View send to Address, or what comes to
	// Address of a Workload with this Gateway.
	View string `json:"view,omitempty"`
	// Protocol; default AutoHTTP.
	Protocol Protocol `json:"protocol,omitempty"`
	// Asking, of a View, are the Workloads (project/workload) that have to see
	// requests here, although nobody said what is spoken: Protocol is theirs, and
	// all others send bytes, for which a TCPRoute is. Empty: Protocol is that of all.
	Asking []string `json:"asking,omitempty"`
	// Hostname that this Listener serves, perhaps with a wildcard as its first
	// label; empty: all.
	Hostname string `json:"hostname,omitempty"`
	// TLS is terminated here; nil: plain bytes.
	TLS *ServerTLS `json:"tls,omitempty"`
	// ProxyProtocol expects a PROXY header, version 1 or 2, in front of all else.
	ProxyProtocol bool `json:"proxyProtocol,omitempty"`
	// Trusted: callers are ours, so internal fields (x-moire-*, l5d-*,
	// x-forwarded-*, x-request-id) are believed; elsewhere they are removed.
	Trusted bool `json:"trusted,omitempty"`
	// EncodedSlashes passes %2F and %5C in paths on, as part of an element; else
	// they are refused, because some servers see a slash there.
	EncodedSlashes bool   `json:"encodedSlashes,omitempty"`
	Limits         Limits `json:"limits,omitzero"`
}

// Limits of a Listener. Zero means the default, which is safe towards the
// Internet; a negative number or duration means none.
type Limits struct {
	// Connections at a time; default 50,000.
	Connections int `json:"connections,omitempty"`
	// Head is the most bytes of a request head; default 64 KiB.
	Head int `json:"head,omitempty"`
	// Fields is the most fields of a head; default 100.
	Fields int `json:"fields,omitempty"`
	// Body is the most bytes of a request body; default none.
	Body int64 `json:"body,omitempty"`
	// Streams of an HTTP/2 connection at a time; default 100.
	Streams int `json:"streams,omitempty"`
	// Requests on one connection before it is closed; default none.
	Requests int `json:"requests,omitempty"`
	// Handshake until TLS is up; default 5s.
	Handshake Duration `json:"handshake,omitzero"`
	// HeadTime from the first byte of a request to the end of its head; default 10s.
	HeadTime Duration `json:"headTime,omitzero"`
	// Idle between two requests of a connection; default 1h.
	Idle Duration `json:"idle,omitzero"`
	// Stall: nothing moved in either direction of a request; default 5m.
	Stall Duration `json:"stall,omitzero"`
	// MinRate of a body that is read or written, bytes per second over 10 s
	// while the peer keeps us waiting; default 240.
	MinRate int `json:"minRate,omitempty"`
}

// ServerTLS is how a Listener speaks TLS.
type ServerTLS struct {
	// Certificates by name; the SNI chooses, the first is the default.
	Certificates []string `json:"certificates"`
	// ClientCA is a PEM bundle that a caller's certificate must come from; empty:
	// callers need none.
	ClientCA string `json:"clientCA,omitempty"`
	// ClientCAFile is read in place of ClientCA when a Config is loaded from a
	// file, and empty after.
	ClientCAFile string `json:"clientCAFile,omitempty"`
	// ClientOptional: a caller may have none, but not a wrong one.
	ClientOptional bool `json:"clientOptional,omitempty"`
	// Callers are the URI SANs allowed, exact; empty: any that ClientCA vouches for.
	Callers []string `json:"callers,omitempty"`
	// MinVersion "1.2" (default) or "1.3".
	MinVersion string `json:"minVersion,omitempty"`
	// NoResumption turns session tickets off.
	NoResumption bool `json:"noResumption,omitempty"`
}

// Certificate is a chain and its key, PEM, in the Config or in files. Files
// are read again when they change.
type Certificate struct {
	Name      string `json:"name"`
	Chain     string `json:"chain,omitempty"`
	Key       string `json:"key,omitempty"`
	ChainFile string `json:"chainFile,omitempty"`
	KeyFile   string `json:"keyFile,omitempty"`
}

// Telemetry is what is told about requests, and where to.
type Telemetry struct {
	// AccessLog is a path, "stdout", or empty: none.
	AccessLog string `json:"accessLog,omitempty"`
	// AccessFormat is "json" (default) or "text".
	AccessFormat string `json:"accessFormat,omitempty"`
	// Records is a path or a unix socket "unix:/path" that request records go
	// to, one JSON object a line; empty: only the ring that the admin shows.
	Records string `json:"records,omitempty"`
	// NoRecords, NoMetrics turn off what is on by default.
	NoRecords bool `json:"noRecords,omitempty"`
	NoMetrics bool `json:"noMetrics,omitempty"`
	// Tracing; nil: trace context is passed on as it came.
	Tracing *Tracing `json:"tracing,omitempty"`
}

// Tracing makes spans.
type Tracing struct {
	// Sample is the share of new traces that are kept, 0 to 1.
	Sample float64 `json:"sample"`
	// OTLP is the http URL of a collector (…/v1/traces).
	OTLP string `json:"otlp,omitempty"`
	// Zipkin is the http URL of a collector (…/api/v2/spans).
	Zipkin string `json:"zipkin,omitempty"`
	// Propagate is "w3c" (default), "b3" or "both".
	Propagate string `json:"propagate,omitempty"`
}
