package telemetry

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	service "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/l7"
)

func countLines(path string) int {
	b, _ := os.ReadFile(path)
	return bytes.Count(b, []byte("\n"))
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	cfg := someConfig()
	cfg.Telemetry.AccessLog, cfg.Telemetry.AccessFormat = filepath.Join(dir, "access"), "text"
	cfg.Telemetry.Records = filepath.Join(dir, "records")
	tel := New(Options{Log: quiet()})
	tab := tel.Open(cfg)
	stop := run(t, tel)
	r := someRequest(tab)
	for range 100 {
		tel.Worker(0).RequestDone(r)
	}
	eventually(t, "lines are written without more requests", func() bool { return countLines(cfg.Telemetry.AccessLog) == 100 })

	// Somebody moves the log away.
	old := cfg.Telemetry.AccessLog + ".1"
	if err := os.Rename(cfg.Telemetry.AccessLog, old); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new file is begun", func() bool {
		tel.Worker(0).RequestDone(r)
		return countLines(cfg.Telemetry.AccessLog) > 0
	})

	// Another configuration writes elsewhere.
	eventually(t, "all are read", func() bool { h, q := &tel.Worker(0).ring.head, &tel.Worker(0).ring.tail; return h.Load() == q.Load() })
	before := *cfg
	next := *cfg
	next.Telemetry.AccessLog = filepath.Join(dir, "next")
	next.Telemetry.AccessFormat = ""
	r.Table = tel.Open(&next)
	tel.Worker(0).RequestDone(r)
	stop()
	made := int(tel.collected.Load())
	if got := countLines(old) + countLines(before.Telemetry.AccessLog) + countLines(next.Telemetry.AccessLog); got != made || countLines(next.Telemetry.AccessLog) != 1 {
		t.Errorf("%d lines of %d", got, made)
	}
	if got := countLines(cfg.Telemetry.Records); got != made {
		t.Errorf("%d records of %d", got, made)
	}
	if info, err := os.Stat(cfg.Telemetry.Records); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v %v: others may read it", info.Mode(), err)
	}
	var rec record.Record
	b, _ := os.ReadFile(next.Telemetry.AccessLog)
	if err := json.Unmarshal(b, &rec); err != nil || rec.Request.Path != "/cart/items?id=7" {
		t.Error(err, rec)
	}
	if lost := tel.outletCounts[accessLogCounts].lost.Load(); lost != 0 {
		t.Errorf("%d lost", lost)
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cfg := someConfig()
	cfg.Telemetry.Records = "unix:" + path
	tel := New(Options{Log: quiet()})
	tab := tel.Open(cfg)
	run(t, tel)
	r := someRequest(tab)
	counts := &tel.outletCounts[recordCounts]
	tel.Worker(0).RequestDone(r)
	eventually(t, "what nobody takes is counted", func() bool { return counts.lost.Load() == 1 })
	for round := range 2 { // the reader comes, goes, and comes again
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		var c net.Conn
		accepted := make(chan struct{})
		go func() { c, _ = l.Accept(); close(accepted) }()
		deadline := time.After(8 * time.Second)
		for connected := false; !connected; {
			tel.Worker(0).RequestDone(r)
			select {
			case <-accepted:
				connected = true
			case <-deadline:
				t.Fatal("nobody connects in round ", round)
			case <-time.After(50 * time.Millisecond):
			}
		}
		line, err := bufio.NewReader(c).ReadBytes('\n')
		var rec record.Record
		if err != nil || json.Unmarshal(line, &rec) != nil || rec.Route != "shop/front" {
			t.Errorf("%v %s", err, line)
		}
		c.Close()
		l.Close()
	}
}

// TestAnotherReader: what is told just after a reader ended comes to the next one.
func TestAnotherReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := newLines("unix:" + path)
	defer l.close()
	for _, line := range []string{"a\n", "b\n", "c\n"} {
		there, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := l.deliver(t.Context(), chunk{[]byte(line + line), 2}); n != 2 || err != nil {
			t.Fatalf("%q: %d %v", line, n, err)
		}
		c, err := there.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != line+line {
			t.Errorf("%q came, %v", b, err)
		}
		c.Close()
		there.Close()
	}
}

// broken writes half a line, then fails.
type broken struct{ *os.File }

func (b broken) Write(p []byte) (int, error) {
	n, _ := b.File.Write(p[:len(p)/2])
	return n, errors.New("full")
}

// A line that could not be written whole does not spoil the next.
func TestPartialWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := newLines(path)
	whole := l.open
	l.open = func(ctx context.Context) (io.WriteCloser, error) {
		w, err := whole(ctx)
		return broken{w.(*os.File)}, err
	}
	l.moved = func(io.WriteCloser) bool { return false }
	n, err := l.deliver(t.Context(), chunk{[]byte("aaaaa\nbbbbb\nccccc\n"), 3})
	if n != 1 || err == nil {
		t.Errorf("%d %v", n, err)
	}
	if n, err := l.deliver(t.Context(), chunk{[]byte("x\n"), 1}); n != 0 || err == nil {
		t.Errorf("tried again at once: %d %v", n, err)
	}
	l.open, l.looked = whole, time.Time{}
	if n, err := l.deliver(t.Context(), chunk{[]byte("ddddd\n"), 1}); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	l.close()
	b, _ := os.ReadFile(path)
	if string(b) != "aaaaa\nbbb\nddddd\n" {
		t.Errorf("%q", b)
	}
}

// An outlet that hangs loses what is its own, and nobody waits.
func TestSlowOutlet(t *testing.T) {
	var counts outletCounts
	o := newOutlet("slow", &counts, quiet())
	o.append = func(dst []byte, _ *told) ([]byte, int) { return append(dst, make([]byte, chunkBytes)...), 1 }
	release := make(chan struct{})
	o.deliver = func(context.Context, chunk) (int, error) { <-release; return 1, nil }
	var wg sync.WaitGroup
	wg.Go(func() { o.run(t.Context()) })
	for range 100 {
		o.add(&told{}, 0)
	}
	close(release)
	o.end()
	wg.Wait()
	if d, l := counts.delivered.Load(), counts.lost.Load(); d+l != 100 || l < 100-chunksWaiting-1 {
		t.Errorf("%d delivered, %d lost", d, l)
	}
}

// collectorStub takes spans, as often as it is told to.
type collectorStub struct {
	*httptest.Server
	answers []int // statuses; then 200
	calls   atomic.Int64
	mu      sync.Mutex
	spans   int
	kind    string
}

func newCollectorStub(t *testing.T, answers ...int) *collectorStub {
	c := &collectorStub{answers: answers}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(c.calls.Add(1))
		b, _ := io.ReadAll(r.Body)
		if n <= len(c.answers) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(c.answers[n-1])
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kind = r.Header.Get("Content-Type")
		var req service.ExportTraceServiceRequest
		if proto.Unmarshal(b, &req) == nil {
			c.spans += len(req.ResourceSpans[0].ScopeSpans[0].Spans)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func TestExport(t *testing.T) {
	for name, c := range map[string]struct {
		answers   []int
		calls     int64
		delivered uint64
		lost      uint64
	}{
		"at once":        {nil, 1, 2, 0},
		"after trying":   {[]int{503, 429}, 3, 2, 0},
		"never":          {[]int{502, 502, 502, 502, 502, 502}, exportTries, 0, 2},
		"bad request":    {[]int{400}, 1, 0, 2},
		"moved elswhere": {[]int{302}, 1, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			stub := newCollectorStub(t, c.answers...)
			o := newOTLP("edge", "v1")
			tel := New(Options{Log: quiet()})
			tab := tel.Open(tracedConfig(""))
			b, n := o.append(nil, tell(tel, tracedRequest(tab)))
			p := &poster{url: stub.URL + "/v1/traces", f: o, pause: time.Millisecond, client: stub.Client()}
			p.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			delivered, err := p.deliver(t.Context(), chunk{b, n})
			if stub.calls.Load() != c.calls || uint64(delivered) != c.delivered || (err == nil) != (c.lost == 0) || stub.spans != int(c.delivered) {
				t.Errorf("%d calls, %d delivered, %d taken, %v", stub.calls.Load(), delivered, stub.spans, err)
			}
		})
	}
}

func TestSpansReachCollectors(t *testing.T) {
	otlp, zipkin := newCollectorStub(t), newCollectorStub(t)
	cfg := someConfig()
	cfg.Telemetry.Tracing = &l7.Tracing{Sample: 1, OTLP: otlp.URL + "/v1/traces", Zipkin: zipkin.URL + "/api/v2/spans"}
	tel := New(Options{Log: quiet()})
	tab := tel.Open(cfg)
	stop := run(t, tel)
	r := tracedRequest(tab)
	for i := range 50 {
		r.Trace.bits ^= traceBits(i%2) * sampled // only half of them are kept
		tel.Worker(0).RequestDone(r)
	}
	stop()
	kept := tel.outletCounts[otlpCounts].delivered.Load()
	if kept == 0 || kept%2 != 0 || tel.outletCounts[zipkinCounts].delivered.Load() != kept || otlp.spans != int(kept) || kept == 100 {
		t.Errorf("%d kept, %d taken, Zipkin %d", kept, otlp.spans, tel.outletCounts[zipkinCounts].delivered.Load())
	}
	if otlp.kind != "application/x-protobuf" || zipkin.kind != "application/json" {
		t.Error(otlp.kind, zipkin.kind)
	}
}

// A collector that is not there costs spans, and does not hold up the end for
// long.
func TestNoCollector(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	cfg := someConfig()
	cfg.Telemetry.Tracing = &l7.Tracing{Sample: 1, OTLP: "http://" + l.Addr().String() + "/v1/traces"}
	tel := New(Options{Log: quiet()})
	tel.grace = 300 * time.Millisecond
	tab := tel.Open(cfg)
	stop := run(t, tel)
	tel.Worker(0).RequestDone(tracedRequest(tab))
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the end took %s", took)
	}
	if got := tel.outletCounts[otlpCounts].lost.Load(); got != 2 {
		t.Errorf("%d lost", got)
	}
	if text := metricsOf(t, tel); !strings.Contains(text, `moire_proxy_outlet_lost_total{outlet="otlp"} 2`) {
		t.Error("not told of")
	}
}
