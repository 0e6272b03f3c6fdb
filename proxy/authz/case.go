package authz

import (
	"net/netip"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/policy"
)

// About is a request, and who takes part in it.
type About struct {
	// Head as it will be sent on: sanitized, filtered, its path in normal form.
	Head *message.Head
	// Host of it in lower case, without port and without a full stop at the end.
	Host []byte
	// GRPC: it is a gRPC call.
	GRPC bool
	// Protocol that its caller speaks: HTTP/1.0, HTTP/1.1 or HTTP/2.
	Protocol string
	// ID of the request, if it has one.
	ID []byte
	// Now, seconds and nanoseconds since 1970.
	Now   int64
	Nanos int32
	// Source sent it, Destination is to get it.
	Source, Destination Party

	Keys   *Keys
	Memory *Memory
	Holder Holder
}

// Party is one side of a request.
type Party struct {
	Address netip.AddrPort
	// Name, project/workload; Principal, its SPIFFE ID when that is proven.
	Name, Principal string
	Labels          map[string]string
}

// Holder is who holds the request and can wait without keeping its worker.
type Holder interface {
	// Apart has work of a kind done outside of the loop, by a Notary, and returns
	// when that is so. False: there is too much of it, and it was not done.
	Apart(kind any, work func()) bool
	// Ask calls envoy.service.auth.v3.Authorization/Check of a service with a
	// message in gRPC's framing, and returns its answer, framed as well. The error
	// says why there is none.
	Ask(e *policy.External, question []byte) (answer []byte, err error)
}

// Case is one request while it is decided about. An exchange has one, whose
// memory is used again; the zero Case is ready.
type Case struct {
	About
	request  policy.Request
	fields   []policy.Field
	bears    bearing
	asked    []asked
	question []byte
}

// Decide says what happens to the request. It may wait. It may be asked again
// about the same request, to another endpoint: services are not.
func (c *Case) Decide(s *policy.Session) policy.Verdict {
	c.bears = bearing{}
	c.view(s.Fields())
	return s.Decide(&c.request)
}

// Reset lets go of everything that belongs to the request.
func (c *Case) Reset() {
	clear(c.fields)
	clear(c.asked)
	*c = Case{fields: c.fields[:0], asked: c.asked[:0], question: c.question[:0]}
}

// view makes of the head what is decided about.
func (c *Case) view(fields bool) {
	h := c.Head
	c.request = policy.Request{Method: method(h), Path: h.PathOnly(), Host: c.Host, GRPC: c.GRPC, Witness: c}
	if !fields {
		return
	}
	c.fields = c.fields[:0]
	for i := range h.Fields {
		c.fields = append(c.fields, policy.Field{Name: h.Fields[i].Name, Value: h.Fields[i].Value})
	}
	c.request.Fields = c.fields
}

var get = []byte("GET")

// method of a request. An extended CONNECT (RFC 8441) is the GET with Upgrade
// that it is to an HTTP/1.1 endpoint, and that it was to an HTTP/1.1 caller.
func method(h *message.Head) []byte {
	if h.Upgrade != nil && h.IsMethod("CONNECT") {
		return get
	}
	return h.Method
}

var _ policy.Witness = (*Case)(nil)
