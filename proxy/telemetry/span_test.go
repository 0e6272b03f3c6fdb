package telemetry

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	service "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// tracedRequest was sent on, over TLS, after one retry.
func tracedRequest(tab *Table) *Request {
	r := someRequest(tab)
	r.Secure, r.Retries = true, 1
	r.Trace = Trace{ID: [16]byte{0: 0xab, 15: 1}, Parent: [8]byte{7: 2}, Server: [8]byte{7: 3}, Client: [8]byte{7: 4}, bits: sampled | random | decided}
	return r
}

func decodeOTLP(t *testing.T, o *otlp, spans []byte) []*trace.Span {
	t.Helper()
	var req service.ExportTraceServiceRequest
	if err := (proto.UnmarshalOptions{}).Unmarshal(o.body(spans), &req); err != nil {
		t.Fatal(err)
	}
	if len(req.ProtoReflect().GetUnknown()) > 0 || len(req.ResourceSpans) != 1 || len(req.ResourceSpans[0].ScopeSpans) != 1 {
		t.Fatalf("%v", &req)
	}
	r := req.ResourceSpans[0]
	if got := attributesOf(r.Resource.Attributes); got != "service.name=edge service.version=v1" {
		t.Errorf("resource %s", got)
	}
	if s := r.ScopeSpans[0].Scope; s.Name != scope || s.Version != "v1" {
		t.Errorf("scope %v", s)
	}
	return r.ScopeSpans[0].Spans
}

func attributesOf(all []*common.KeyValue) string {
	var out []string
	for _, a := range all {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			out = append(out, a.Key+"="+v.StringValue)
		case *common.AnyValue_IntValue:
			out = append(out, fmt.Sprintf("%s=%d", a.Key, v.IntValue))
		case *common.AnyValue_ArrayValue:
			var list []string
			for _, e := range v.ArrayValue.Values {
				list = append(list, e.GetStringValue())
			}
			out = append(out, a.Key+"=["+strings.Join(list, " ")+"]")
		default:
			out = append(out, a.Key+"=?")
		}
	}
	return strings.Join(out, " ")
}

func TestOTLP(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(tracedConfig(""))
	o := newOTLP("edge", "v1")
	r := tracedRequest(tab)
	b, n := o.append(nil, tell(tel, r))
	spans := decodeOTLP(t, o, b)
	if n != 2 || len(spans) != 2 {
		t.Fatalf("%d and %d spans", n, len(spans))
	}
	server, client := spans[0], spans[1]
	if server.Kind != trace.Span_SPAN_KIND_SERVER || client.Kind != trace.Span_SPAN_KIND_CLIENT {
		t.Error(server.Kind, client.Kind)
	}
	for _, s := range spans {
		if hex.EncodeToString(s.TraceId) != "ab000000000000000000000000000001" || s.Name != "GET" || s.Status != nil {
			t.Errorf("%v", s)
		}
	}
	if string(client.ParentSpanId) != string(server.SpanId) || server.ParentSpanId[7] != 2 || server.SpanId[7] != 3 || client.SpanId[7] != 4 {
		t.Errorf("%v %v", server, client)
	}
	if server.StartTimeUnixNano != 1_800_000_000_001_000_000 || server.EndTimeUnixNano-server.StartTimeUnixNano != 1_100_000 ||
		client.StartTimeUnixNano != 1_800_000_000_001_050_000 || client.EndTimeUnixNano-client.StartTimeUnixNano != 950_000 {
		t.Errorf("%v %v", server, client)
	}
	if server.Flags != 0x303 || client.Flags != 0x103 {
		t.Errorf("flags %#x %#x", server.Flags, client.Flags)
	}
	if d := cmp.Diff("http.request.method=GET http.response.status_code=200 url.path=/cart/items url.query=id=7 url.scheme=https user_agent.original=curl/8.5.0 "+
		"client.address=203.0.113.9 network.protocol.version=1.1 server.address=shop.example server.port=8080 network.peer.address=10.1.0.9 network.peer.port=51234 "+
		"moire.caller=spiffe://shop/ns/shop/sa/web moire.request_id=5f1c0e6a-0000-4000-8000-2b5c8d7e9f01 moire.listener=web moire.route=shop/front moire.rule=cart",
		attributesOf(server.Attributes)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff("http.request.method=GET http.response.status_code=200 url.full=https://shop.example:8080/cart/items?id=7 http.request.resend_count=1 "+
		"server.address=shop.example server.port=8080 network.peer.address=fd00::7 network.peer.port=8080 moire.cluster=shop/cart",
		attributesOf(client.Attributes)); d != "" {
		t.Error(d)
	}
}

func TestSpansOfGRPC(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(tracedConfig(""))
	o := newOTLP("edge", "v1")
	r := tracedRequest(tab)
	r.Method, r.Path, r.Protocol, r.GRPC, r.Flags = []byte("POST"), []byte("/shop.Cart/Add"), HTTP2, 5, UpstreamReset
	b, _ := o.append(nil, tell(tel, r))
	spans := decodeOTLP(t, o, b)
	for _, s := range spans {
		got := attributesOf(s.Attributes)
		if s.Name != "shop.Cart/Add" || !strings.Contains(got, " rpc.system.name=grpc rpc.method=shop.Cart/Add rpc.response.status_code=NOT_FOUND ") {
			t.Errorf("%s: %s", s.Name, got)
		}
	}
	// Not found is the caller's mistake, not the server's.
	if spans[0].Status != nil || spans[1].Status.Code != trace.Status_STATUS_CODE_ERROR {
		t.Error(spans[0].Status, spans[1].Status)
	}
	if got := attributesOf(spans[0].Attributes); !strings.HasSuffix(got, "moire.flags=[UR]") {
		t.Error(got)
	}
}

func TestFailedSpans(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(tracedConfig(""))
	for _, c := range []struct {
		change         func(*Request)
		server, client bool
		why            string // error.type of the one that failed
	}{
		{func(r *Request) { r.Status = 200 }, false, false, ""},
		{func(r *Request) { r.Status = 404 }, false, true, "404"},
		{func(r *Request) { r.Status = 503 }, true, true, "503"},
		{func(r *Request) { r.Status, r.Flags = 0, CallerClosed }, true, true, "DC"},
		{func(r *Request) { r.Status = 0 }, true, true, "_OTHER"},
		{func(r *Request) { r.Status, r.Protocol = 0, TCP }, false, false, ""},
		{func(r *Request) { r.Status, r.Protocol, r.Flags = 0, TCP, UpstreamFailed }, false, true, "UF"},
		{func(r *Request) { r.GRPC = 13 }, true, true, "INTERNAL"},
		{func(r *Request) { r.GRPC = 99 }, false, true, "other"},
	} {
		r := tracedRequest(tab)
		c.change(r)
		k := tell(tel, r)
		if k.failed(serverKind) != c.server || k.failed(clientKind) != c.client || c.why != "" && k.errorType() != c.why {
			t.Errorf("status %d, gRPC %d, flags %s: server %t, client %t, %s", r.Status, r.GRPC, r.Flags, k.failed(serverKind), k.failed(clientKind), k.errorType())
		}
	}
}

// Whatever callers send, spans can be read by the official decoder and by any
// JSON parser.
func TestSpansOfAnything(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(tracedConfig(""))
	rng := rand.New(rand.NewPCG(7, 8))
	o, z := newOTLP("edge", "v1"), newZipkin("edge")
	var ob, zb []byte
	spans := 0
	for range 1000 {
		k := tell(tel, randomRequest(rng, tab))
		var n, m int
		ob, n = o.append(ob, k)
		zb, m = z.append(zb, k)
		if n != m {
			t.Fatal(n, m)
		}
		spans += n
	}
	if got := len(decodeOTLP(t, o, ob)); got != spans {
		t.Errorf("%d spans, want %d", got, spans)
	}
	var list []zipkinSpan
	if err := json.Unmarshal(z.body(zb), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != spans || !utf8.Valid(zb) {
		t.Errorf("%d spans, want %d", len(list), spans)
	}
}

// zipkinSpan is what Zipkin's API has of a span, version 2.
type zipkinSpan struct {
	TraceID        string            `json:"traceId"`
	ParentID       string            `json:"parentId"`
	ID             string            `json:"id"`
	Kind           string            `json:"kind"`
	Name           string            `json:"name"`
	Timestamp      int64             `json:"timestamp"`
	Duration       int64             `json:"duration"`
	LocalEndpoint  zipkinEndpoint    `json:"localEndpoint"`
	RemoteEndpoint zipkinEndpoint    `json:"remoteEndpoint"`
	Tags           map[string]string `json:"tags"`
	Debug          bool              `json:"debug"`
}

type zipkinEndpoint struct {
	ServiceName string `json:"serviceName"`
	IPv4        string `json:"ipv4"`
	IPv6        string `json:"ipv6"`
	Port        int    `json:"port"`
}

func TestZipkin(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(tracedConfig("b3"))
	r := tracedRequest(tab)
	r.Status, r.Flags = 503, UpstreamFailed
	r.Trace.bits |= narrow
	z := newZipkin("edge")
	b, _ := z.append(nil, tell(tel, r))
	var got []zipkinSpan
	if err := json.Unmarshal(z.body(b), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Tags["moire.flags"] != "UF" || got[0].Tags["http.response.status_code"] != "503" || got[1].Tags["error"] != "503" {
		t.Errorf("%+v", got)
	}
	got[0].Tags, got[1].Tags = nil, nil
	want := []zipkinSpan{
		{TraceID: "0000000000000001", ParentID: "0000000000000002", ID: "0000000000000003", Kind: "SERVER", Name: "GET",
			Timestamp: 1_800_000_000_001_000, Duration: 1100,
			LocalEndpoint:  zipkinEndpoint{ServiceName: "edge", IPv4: "10.1.0.1", Port: 80},
			RemoteEndpoint: zipkinEndpoint{IPv4: "10.1.0.9", Port: 51234}},
		{TraceID: "0000000000000001", ParentID: "0000000000000003", ID: "0000000000000004", Kind: "CLIENT", Name: "GET",
			Timestamp: 1_800_000_000_001_050, Duration: 950,
			LocalEndpoint:  zipkinEndpoint{ServiceName: "edge"},
			RemoteEndpoint: zipkinEndpoint{ServiceName: "shop/cart", IPv6: "fd00::7", Port: 8080}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Only exchanges that were sent on have a client's span.
func TestNoClientSpan(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(tracedConfig(""))
	for name, change := range map[string]func(*Request){
		"no endpoint":     func(r *Request) { r.Upstream = netip.AddrPort{} },
		"nothing written": func(r *Request) { r.Trace.Client = [8]byte{} },
		"no try":          func(r *Request) { r.UpstreamStart = 0 },
	} {
		r := tracedRequest(tab)
		change(r)
		if _, n := newOTLP("edge", "").append(nil, tell(tel, r)); n != 1 {
			t.Errorf("%s: %d spans", name, n)
		}
	}
}

func TestRejected(t *testing.T) {
	b, err := proto.Marshal(&service.ExportTraceServiceResponse{PartialSuccess: &service.ExportTracePartialSuccess{RejectedSpans: 7, ErrorMessage: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	o := newOTLP("edge", "")
	if got := o.rejected(b); got != 7 {
		t.Error(got)
	}
	for _, b := range [][]byte{nil, {}, {0xff}, []byte("hello"), b[:3]} {
		if got := o.rejected(b); got != 0 {
			t.Errorf("%x: %d", b, got)
		}
	}
}

func TestSplitAuthority(t *testing.T) {
	for in, want := range map[string]string{"a": "a 0", "a:80": "a 80", "[::1]:443": "::1 443", "[::1]": "::1 0", "": " 0", "a:": "a 0", "a:b": "a:b 0", "a:99999999999": "a:99999999999 0"} {
		host, port := splitAuthority([]byte(in))
		if got := fmt.Sprintf("%s %d", host, port); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
