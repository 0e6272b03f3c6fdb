//go:build judge

package telemetry

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	service "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

const judgeConfig = `
receivers:
  otlp:
    protocols: {http: {endpoint: "%s"}}
  zipkin: {endpoint: "%s"}
exporters:
  otlp_http: {endpoint: "%s", compression: none}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces/otlp: {receivers: [otlp], exporters: [otlp_http]}
    traces/zipkin: {receivers: [zipkin], exporters: [otlp_http]}
`

// freePort of loopback, as host:port.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// judge starts a real collector that sends what it understood to us.
func judge(t *testing.T) (otlpURL, zipkinURL string, spans func() []*trace.Span) {
	t.Helper()
	binary := os.Getenv("MOIRE_OTELCOL")
	if binary == "" {
		t.Skip("MOIRE_OTELCOL is no OpenTelemetry collector; make traces builds one and runs this")
	}
	var mu sync.Mutex
	var got []*trace.Span
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var req service.ExportTraceServiceRequest
		if err := proto.Unmarshal(b, &req); err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				got = append(got, ss.Spans...)
			}
		}
	}))
	otlpAt, zipkinAt := freePort(t), freePort(t)
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, judgeConfig, otlpAt, zipkinAt, sink.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, binary, "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait() // killed
		sink.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("the collector said:\n%s", b)
		}
		log.Close()
	})
	for _, at := range []string{otlpAt, zipkinAt} {
		eventually(t, "the collector listens", func() bool {
			c, err := net.Dial("tcp", at)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	return "http://" + otlpAt + "/v1/traces", "http://" + zipkinAt + "/api/v2/spans", func() []*trace.Span {
		mu.Lock()
		defer mu.Unlock()
		return append([]*trace.Span(nil), got...)
	}
}

// A real collector understands our spans as they are meant, in both formats.
func TestRealCollector(t *testing.T) {
	otlpURL, zipkinURL, spans := judge(t)
	cfg := someConfig()
	cfg.Telemetry.Tracing = &l7.Tracing{Sample: 1, OTLP: otlpURL, Zipkin: zipkinURL}
	tel := New(Options{Version: "v1", Log: quiet()})
	tab := tel.Open(cfg)
	stop := run(t, tel)
	w := tel.Worker(0)
	const n = 200
	for i := range n {
		r := someRequest(tab)
		var h message.Head
		w.Extract(tab, &h, &r.Trace)
		w.Inject(tab, &h, &r.Trace, nil)
		if i%2 == 1 {
			r.Protocol, r.Method, r.Path, r.GRPC = HTTP2, []byte("POST"), []byte("/shop.Cart/Add"), 14
		}
		w.RequestDone(r)
	}
	eventually(t, "all spans came back in both formats", func() bool { return len(spans()) == 4*n })
	stop()
	for _, c := range []int{otlpCounts, zipkinCounts} {
		if d, l := tel.outletCounts[c].delivered.Load(), tel.outletCounts[c].lost.Load(); d != 2*n || l != 0 {
			t.Errorf("%s: %d delivered, %d lost", outletNames[c], d, l)
		}
	}
	// Each span came twice, and says the same both times.
	type key struct {
		trace, span, parent, name string
		kind                      trace.Span_SpanKind
		status                    trace.Status_StatusCode
	}
	seen := map[key]int{}
	for _, s := range spans() {
		seen[key{hex.EncodeToString(s.TraceId), hex.EncodeToString(s.SpanId), hex.EncodeToString(s.ParentSpanId), strings.ToLower(s.Name), s.Kind, s.GetStatus().GetCode()}]++
		attributes := " " + attributesOf(s.Attributes) + " "
		for _, want := range []string{" server.address=shop.example ", " http.response.status_code=200 "} {
			if !strings.Contains(attributes, want) {
				t.Fatalf("%s is missing in %s", want, attributes)
			}
		}
	}
	if len(seen) != 2*n {
		t.Errorf("%d different spans, want %d", len(seen), 2*n)
	}
	for k, times := range seen {
		if times != 2 {
			t.Fatalf("%+v came %d times", k, times)
		}
	}
}
