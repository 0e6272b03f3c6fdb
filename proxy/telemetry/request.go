package telemetry

import (
	"net/netip"

	"moire.dev/moire/snapshot/policy"
)

// Protocol that an exchange was spoken in by the caller.
type Protocol uint8

// Protocols. TCP is a connection that was passed through, TLSPassed one of TLS
// that was not opened.
const (
	HTTP10 Protocol = iota
	HTTP11
	HTTP2
	TCP
	TLSPassed
	lastProtocol
)

var protocolNames = [lastProtocol]string{"HTTP/1.0", "HTTP/1.1", "HTTP/2", "TCP", "TLS"}

// String is the name in records and in the access log.
func (p Protocol) String() string {
	if p >= lastProtocol {
		return "unknown"
	}
	return protocolNames[p]
}

// None is the id of a route, cluster or listener that there is none of, and the
// gRPC status of what is not gRPC.
const None = -1

// Request is what a worker tells of one exchange, or of one connection that was
// passed through, when it is over. A worker has one and fills it again and
// again; every slice is copied, and cut where it is too long for a record.
type Request struct {
	// Table of the configuration that the exchange was made with; the ids below
	// are its own.
	Table    *Table
	Listener int32
	Route    int32 // of the rule: see Table.Rule
	Cluster  int32

	Protocol Protocol
	Status   int // of the answer; 0: the caller got none
	GRPC     int // gRPC status; None: it was not gRPC, or has none
	Flags    Flags
	Retries  int
	Secure   bool // the caller spoke TLS

	Method    []byte
	Host      []byte // authority
	Path      []byte // with query
	RequestID []byte // x-request-id
	Forwarded []byte // x-forwarded-for
	Agent     []byte // user-agent
	Caller    []byte // identity of the caller, its URI SAN

	Source   netip.AddrPort // the caller
	Local    netip.AddrPort // what it asked for
	Upstream netip.AddrPort // endpoint of the last try; zero: none was tried

	Trace Trace
	Mesh  Mesh

	In, Out uint64 // bytes of bodies: of the request, of the answer

	// Moments, nanoseconds of Options.Now; 0: it never came to that.
	Start         int64 // the head of the request was there
	UpstreamStart int64 // the last try began
	FirstByte     int64 // the head of the endpoint's answer was there
	UpstreamEnd   int64 // the endpoint's answer was there to its end, or it failed
	End           int64 // all is written
}

// Mesh is what a request has only in a tenant network.
type Mesh struct {
	// Side is whose proxy tells: None, Out of the caller or In of the called one.
	Side Side
	VNI  uint32
	// Source and Destination are identities; 0: unknown.
	Source, Destination policy.Identity
	// Rule that decided, on that side; empty: Drop says what did.
	Rule policy.RuleID
	Tier policy.Tier
	// Shadow is what Policies in mode audit would have decided.
	Shadow policy.DefaultRule
	Drop   Drop
}

// Side of a connection in a tenant network.
type Side uint8

// Sides.
const (
	NoSide Side = iota
	Out
	In
)

// Drop is why a proxy refused something before any rule was asked, or though a
// rule would have let it in.
type Drop uint8

// Drops.
const (
	NoDrop        Drop = iota
	NotInMesh          // mtls is strict, and no TLS came
	WrongIdentity      // who called, or answered, is not who is at that address
	NoCertificate      // the Workload has no certificate that is good
	BadTLS             // the handshake failed
	NotHTTP            // a rule asks for requests, and none came
	BadToken           // a rule asks for a token, and the one that came is not believed
	NoKeys             // a rule asks for a token, and there is nothing to verify it with
	NoAuthorizer       // the service that a rule asks gave no answer
	lastDrop
)

var dropNames = [lastDrop]string{"", "not-in-mesh", "wrong-identity", "no-certificate", "bad-tls", "not-http", "bad-token", "no-keys", "no-authorizer"}

// String is the name in records.
func (d Drop) String() string {
	if d >= lastDrop {
		return "unknown"
	}
	return dropNames[d]
}

// Reset empties r and keeps nothing: ids and the gRPC status are None.
func (r *Request) Reset() {
	*r = Request{Listener: None, Route: None, Cluster: None, GRPC: None}
}
