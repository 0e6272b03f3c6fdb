package record

import (
	"net/netip"
	"time"
)

// Kind says which moment of a session a Record tells of.
type Kind string

// Kinds of a Record.
const (
	Started Kind = "started" // first packet allowed
	Update  Kind = "update"  // still alive, counters so far
	Ended   Kind = "ended"   // closed or idle for too long, final counters
	Denied  Kind = "denied"  // not allowed, or dropped; Drop says why
)

// Observer says where a Record was made.
type Observer string

// Observers.
const (
	AtSource      Observer = "source"
	AtDestination Observer = "destination"
	AtBoth        Observer = "both"  // both ends are on the node
	AtProxy       Observer = "proxy" // an L7 proxy between them
)

// Verdicts.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Record is one observation of one session by one node, or of one request by
// one proxy. The same session has the same ID at every record of one observer.
//
// Of a request Source is the caller and Destination the endpoint that was
// tried last, or what the caller asked for when none was; ServiceAddress is
// what it asked for, Route the route that was chosen, and the counters are the
// bytes of the bodies.
type Record struct {
	ID       string    `json:"id"`
	Kind     Kind      `json:"kind"`
	Time     time.Time `json:"time"`
	Start    time.Time `json:"start"`
	Node     string    `json:"node"`
	Observer Observer  `json:"observer"`

	Protocol    string `json:"protocol"` // tcp, udp, sctp, icmp, or the IP protocol number
	Source      End    `json:"source"`
	Destination End    `json:"destination"`

	Verdict string `json:"verdict"` // allow or deny
	// Rule that decided: see snapshot/policy.RuleID. At both ends the egress
	// rule is in Rule unless ingress denied; IngressRule is set as well.
	Rule        string `json:"rule,omitempty"`
	IngressRule string `json:"ingressRule,omitempty"`
	Tier        string `json:"tier,omitempty"`
	Direction   string `json:"direction,omitempty"` // egress or ingress: which side decided
	// Shadow is what Policies in mode audit would have decided; empty when no
	// different.
	ShadowVerdict string `json:"shadowVerdict,omitempty"`
	ShadowRule    string `json:"shadowRule,omitempty"`
	// Drop is the reason when it was not a rule: see docs/records.md.
	Drop string `json:"drop,omitempty"`

	// Forward counters are from Source to Destination.
	ForwardPackets uint64 `json:"forwardPackets"`
	ForwardBytes   uint64 `json:"forwardBytes"`
	ReplyPackets   uint64 `json:"replyPackets"`
	ReplyBytes     uint64 `json:"replyBytes"`

	// Service, project/name, and the address and port that the source asked
	// for, when Destination is a backend that was chosen for them.
	Service        string `json:"service,omitempty"`
	ServiceAddress string `json:"serviceAddress,omitempty"`
	// Translated is how the session looks on the other side of a translation
	// (a Link, a FloatingIP, the way outside): address:port, empty when the same.
	TranslatedSource      string `json:"translatedSource,omitempty"`
	TranslatedDestination string `json:"translatedDestination,omitempty"`
	// Via is the function instance, project/workload, that the session went to.
	Via string `json:"via,omitempty"`

	// Filled by the L7 data plane. Latency is from the head of a request to the
	// end of its answer, nanoseconds.
	Route   string        `json:"route,omitempty"`
	Latency time.Duration `json:"latency,omitempty"`
	TraceID string        `json:"traceID,omitempty"`
	// Request is what a session does not have; nil in the record of one.
	Request *Request `json:"request,omitempty"`
}

// Request is the part of a Record that only an exchange through an L7 proxy
// has. Texts are as the caller sent them, but that a byte which is not printable
// is written \xNN.
type Request struct {
	ID       string `json:"id,omitempty"` // x-request-id
	Protocol string `json:"protocol"`     // HTTP/1.0, HTTP/1.1, HTTP/2; TCP or TLS when passed through
	Secure   bool   `json:"secure,omitempty"`
	Method   string `json:"method,omitempty"`
	Host     string `json:"host,omitempty"`
	Path     string `json:"path,omitempty"` // with query
	// Status of the answer; 0: the caller got none.
	Status int `json:"status,omitempty"`
	// GRPCStatus; nil: it was not gRPC.
	GRPCStatus *int `json:"grpcStatus,omitempty"`
	// Flags are Envoy's response flags: UF, URX, DC and so on.
	Flags []string `json:"flags,omitempty"`

	Listener string `json:"listener,omitempty"`
	Rule     string `json:"rule,omitempty"` // of the Route: its name, or its place from 0
	Cluster  string `json:"cluster,omitempty"`
	Retries  int    `json:"retries,omitempty"`

	// FirstByte is from the head of the request to that of the endpoint's answer,
	// Upstream from the begin of the last try to the end of its answer,
	// nanoseconds.
	FirstByte time.Duration `json:"firstByte,omitempty"`
	Upstream  time.Duration `json:"upstream,omitempty"`

	// SpanID is the proxy's own span, ParentID the caller's.
	SpanID   string `json:"spanID,omitempty"`
	ParentID string `json:"parentID,omitempty"`

	Agent     string `json:"agent,omitempty"`     // user-agent
	Forwarded string `json:"forwarded,omitempty"` // x-forwarded-for
	// Cut are the fields above, by their names here, that were longer; "caller"
	// is Source.Identity.
	Cut []string `json:"cut,omitempty"`
}

// End is one side of a session.
type End struct {
	Domain   string            `json:"domain,omitempty"`
	Project  string            `json:"project,omitempty"`
	Network  string            `json:"network,omitempty"`
	VNI      uint32            `json:"vni"`
	Address  netip.Addr        `json:"address"`
	Port     uint16            `json:"port,omitempty"`
	Workload string            `json:"workload,omitempty"`
	Identity string            `json:"identity,omitempty"` // SPIFFE ID
	Number   uint32            `json:"identityNumber,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Node     string            `json:"node,omitempty"`
}
