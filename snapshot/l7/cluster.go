package l7

// Cluster is a group of endpoints that are the same to a caller.
type Cluster struct {
	// Name, unique, project/name by habit.
	Name string `json:"name"`
	// Protocol to the endpoints: HTTP1 (default), HTTP2, AutoHTTP (by ALPN;
	// needs TLS) or TCP.
	Protocol  Protocol   `json:"protocol,omitempty"`
	Endpoints []Endpoint `json:"endpoints"`
	TLS       *ClientTLS `json:"tls,omitempty"`
	// ProxyProtocol 1 or 2 is written in front; 0: none.
	ProxyProtocol int `json:"proxyProtocol,omitempty"`

	Balancer Balancer    `json:"balancer,omitzero"`
	Outlier  *Outlier    `json:"outlier,omitempty"`
	Check    *Check      `json:"check,omitempty"`
	Circuit  Circuit     `json:"circuit,omitzero"`
	Budget   RetryBudget `json:"retryBudget,omitzero"`
	Connect  Duration    `json:"connect,omitzero"` // default 5s
	Idle     Duration    `json:"idle,omitzero"`    // of a pooled connection; default 1m
	// Requests on one connection before another is made; 0: no end.
	Requests int `json:"requests,omitempty"`
	// Locality of this proxy, zone by habit; endpoints there come first.
	Locality *Locality `json:"locality,omitempty"`
}

// Endpoint is one address.
type Endpoint struct {
	// Address is host:port, the host an IP address.
	Address string `json:"address"`
	// Weight; nil: 1; 0: takes nothing new.
	Weight   *uint32           `json:"weight,omitempty"`
	Zone     string            `json:"zone,omitempty"`
	Priority int               `json:"priority,omitempty"` // 0 first
	Labels   map[string]string `json:"labels,omitempty"`
	// SPIFFE, when set, is who answers there, in the mesh: mutual TLS 1.3 with the
	// SVID of the calling Workload, and this URI SAN, exact.
	SPIFFE string `json:"spiffe,omitempty"`
}

// ClientTLS is how a Cluster is spoken to in TLS.
type ClientTLS struct {
	// ServerName sent and verified; empty: that of the request (its authority).
	ServerName string `json:"serverName,omitempty"`
	// CA is a PEM bundle; empty: the machine's.
	CA string `json:"ca,omitempty"`
	// CAFile is read in place of CA when a Config is loaded from a file, and empty
	// after.
	CAFile string `json:"caFile,omitempty"`
	// Servers are URI SANs of which the endpoint must have one, in place of a name.
	Servers []string `json:"servers,omitempty"`
	// Certificate by name that we show.
	Certificate string `json:"certificate,omitempty"`
	MinVersion  string `json:"minVersion,omitempty"` // default 1.2
	// Insecure verifies nothing.
	Insecure bool `json:"insecure,omitempty"`
}

// BalancerKind chooses among endpoints.
type BalancerKind string

// BalancerKinds.
const (
	RoundRobin   BalancerKind = "RoundRobin"
	LeastRequest BalancerKind = "LeastRequest" // of two at random (default)
	PeakEWMA     BalancerKind = "PeakEWMA"     // of two at random
	Random       BalancerKind = "Random"
	RingHash     BalancerKind = "RingHash"
	Maglev       BalancerKind = "Maglev"
)

// Balancer of a Cluster.
type Balancer struct {
	Kind BalancerKind `json:"kind,omitempty"`
	// Decay of Peak EWMA; default 10s.
	Decay Duration `json:"decay,omitzero"`
	// SlowStart is the time in which a new endpoint comes to its full share; 0: at once.
	SlowStart Duration `json:"slowStart,omitzero"`
	// Panic is the percentage of healthy endpoints below which all are used;
	// nil: 50; 0: never.
	Panic *uint32 `json:"panic,omitempty"`
	// Choices of LeastRequest and PeakEWMA; default 2.
	Choices int `json:"choices,omitempty"`
	// RingSize is the least number of points of the ring; default 1024.
	RingSize int `json:"ringSize,omitempty"`
}

// Locality prefers endpoints of one zone, and fails over when too few are well.
type Locality struct {
	Zone string `json:"zone"`
	// Overprovision in percent: the share that goes elsewhere grows when
	// healthy endpoints times this are fewer than all; default 140.
	Overprovision uint32 `json:"overprovision,omitempty"`
}

// Outlier ejects endpoints that fail; names and defaults as Envoy has them.
// Every number is a pointer where 0 turns something off.
type Outlier struct {
	Consecutive5xx     *uint32  `json:"consecutive5xx,omitempty"`     // 5
	ConsecutiveGateway *uint32  `json:"consecutiveGateway,omitempty"` // 0: off
	Interval           Duration `json:"interval,omitzero"`            // 10s
	BaseEjection       Duration `json:"baseEjection,omitzero"`        // 30s
	MaxEjection        Duration `json:"maxEjection,omitzero"`         // 300s
	MaxEjectionPercent *uint32  `json:"maxEjectionPercent,omitempty"` // 10, at least one
	// Success rate: ejected when below mean - stdev * factor/1000.
	SuccessRateHosts  *uint32 `json:"successRateHosts,omitempty"`  // 5
	SuccessRateVolume *uint32 `json:"successRateVolume,omitempty"` // 100
	SuccessRateFactor *uint32 `json:"successRateFactor,omitempty"` // 1900; 0: off
	FailurePercent    *uint32 `json:"failurePercent,omitempty"`    // 0: off
	FailureHosts      *uint32 `json:"failureHosts,omitempty"`      // 5
	FailureVolume     *uint32 `json:"failureVolume,omitempty"`     // 50
	// Latency: ejected when its mean over an interval is above this many times
	// the median of all endpoints; 0: off.
	LatencyFactor float64 `json:"latencyFactor,omitempty"`
}

// Check asks endpoints whether they are well.
type Check struct {
	// Kind http, grpc or tcp.
	Kind     string   `json:"kind"`
	Path     string   `json:"path,omitempty"` // http; default /
	Host     string   `json:"host,omitempty"`
	Statuses []int    `json:"statuses,omitempty"` // default 200
	Service  string   `json:"service,omitempty"`  // grpc
	Interval Duration `json:"interval,omitzero"`  // default 5s
	Timeout  Duration `json:"timeout,omitzero"`   // default 1s
	Healthy  int      `json:"healthy,omitempty"`  // answers in a row until well; default 2
	Failed   int      `json:"failed,omitempty"`   // failures in a row until unwell; default 3
}

// Circuit limits of a Cluster, for the whole proxy; 0: the default; negative:
// none.
type Circuit struct {
	Connections int `json:"connections,omitempty"` // 16384
	Pending     int `json:"pending,omitempty"`     // 16384 that wait for a connection
	Requests    int `json:"requests,omitempty"`    // 16384
	Retries     int `json:"retries,omitempty"`     // 3; a budget replaces it
}

// RetryBudget limits retries to a share of what is active.
type RetryBudget struct {
	// Percent of active requests; 0: no budget, Circuit.Retries counts.
	Percent float64 `json:"percent,omitempty"`
	// Minimum that is always allowed at a time; default 3.
	Minimum int `json:"minimum,omitempty"`
}

// Retry of a Rule (GEP-1731), only for what is safe to send again: the request
// was not sent at all, or it is idempotent and its body is still at hand.
type Retry struct {
	// Codes of answers that are tried again; default 502, 503, 504.
	Codes []int `json:"codes,omitempty"`
	// GRPC status codes that are tried again; default 14 (UNAVAILABLE).
	GRPC []int `json:"grpc,omitempty"`
	// Attempts after the first; default 1.
	Attempts int `json:"attempts,omitempty"`
	// Backoff before the first retry, doubled each time and jittered; default 25ms.
	Backoff Duration `json:"backoff,omitzero"`
	// Methods that are idempotent beside GET, HEAD, OPTIONS, PUT, DELETE, TRACE.
	Methods []string `json:"methods,omitempty"`
	// Body is the most bytes of a request that are kept for another try; default 64 KiB.
	Body int `json:"body,omitempty"`
}

// Hedge sends an idempotent request a second time, elsewhere, when there is no
// answer after Delay; the first answer wins.
type Hedge struct {
	Delay Duration `json:"delay"`
	// Most tries at a time; default 2.
	Most int `json:"most,omitempty"`
}

// Fault is put into requests on purpose.
type Fault struct {
	Delay        Duration `json:"delay,omitzero"`
	DelayPercent float64  `json:"delayPercent,omitempty"`
	// Abort is an HTTP status; AbortGRPC a gRPC one.
	Abort        int     `json:"abort,omitempty"`
	AbortGRPC    int     `json:"abortGRPC,omitempty"`
	AbortPercent float64 `json:"abortPercent,omitempty"`
	// Headers that a request must have to be meant; empty: all.
	Headers []ValueMatch `json:"headers,omitempty"`
}

// RateLimit is a token bucket of this proxy.
type RateLimit struct {
	// Requests in each Per; Burst is the size of the bucket, default Requests.
	Requests int      `json:"requests"`
	Per      Duration `json:"per"`
	Burst    int      `json:"burst,omitempty"`
	// By makes a bucket for each caller: "" one for all, "address", "identity"
	// (URI SAN), or "header:<name>".
	By string `json:"by,omitempty"`
}

// HashOn is one part of what is hashed: exactly one is set.
type HashOn struct {
	Header  string `json:"header,omitempty"`
	Cookie  string `json:"cookie,omitempty"`
	Query   string `json:"query,omitempty"`
	Address bool   `json:"address,omitempty"`
}
