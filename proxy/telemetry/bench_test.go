package telemetry

import (
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// oneExchange is all that a worker tells of a request on its way.
func oneExchange(w *Worker, tab *Table, r *Request) {
	w.RequestStarted(tab, r.Route)
	w.TryStarted(tab, r.Cluster)
	w.TryDone(tab, r.Cluster, r.Status, r.UpstreamEnd-r.UpstreamStart)
	w.RequestDone(r)
}

// cpu reports the CPU time of this goroutine, which says more than wall time
// where other work is on the machine.
func cpu(b *testing.B) (report func()) {
	runtime.LockOSThread()
	read := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	start := read()
	return func() {
		b.ReportMetric(float64(read()-start)/float64(b.N), "cpu-ns/op")
		runtime.UnlockOSThread()
	}
}

// benchmark has the worker tell of exchanges; the collector runs beside, so
// that rings do not stay full.
func benchmark(b *testing.B, change func(*l7.Config, *Request)) {
	tel := New(Options{Log: quiet(), Queue: 4096})
	cfg := someConfig()
	r := someRequest(New(Options{Log: quiet()}).Open(cfg))
	change(cfg, r)
	tab := tel.Open(cfg)
	r.Table, r.Route = tab, tab.Rule(0, 0)
	run(b, tel)
	w := tel.Worker(0)
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		r.End += 977
		oneExchange(w, tab, r)
	}
	b.ReportMetric(float64(tel.lost())/float64(b.N), "lost/op")
}

func BenchmarkOff(b *testing.B) {
	benchmark(b, func(c *l7.Config, _ *Request) { c.Telemetry.NoRecords, c.Telemetry.NoMetrics = true, true })
}

func BenchmarkCounters(b *testing.B) {
	benchmark(b, func(c *l7.Config, _ *Request) { c.Telemetry.NoRecords = true })
}

func BenchmarkCountersWorst(b *testing.B) {
	benchmark(b, func(c *l7.Config, r *Request) {
		c.Telemetry.NoRecords = true
		r.GRPC, r.Flags = 14, UpstreamFailed|RetriesExhausted
	})
}

// What the worker pays for a record, without a reader on the other core.
func BenchmarkRecord(b *testing.B) {
	tel := New(Options{Log: quiet()})
	cfg := someConfig()
	cfg.Telemetry.NoMetrics = true
	tab := tel.Open(cfg)
	r := someRequest(tab)
	w := tel.Worker(0)
	b.ReportAllocs()
	defer cpu(b)()
	for i := 0; b.Loop(); i++ {
		if i&511 == 511 {
			w.ring.tail.Store(w.ring.head.Load())
		}
		w.RequestDone(r)
	}
}

func BenchmarkRecordAndCounters(b *testing.B) { benchmark(b, func(*l7.Config, *Request) {}) }

func BenchmarkAccessLog(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	benchmark(b, func(c *l7.Config, _ *Request) { c.Telemetry.AccessLog = path })
}

// What the collector pays, for each request.
func BenchmarkCollect(b *testing.B) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(someConfig())
	r := someRequest(tab)
	r.Trace = Trace{ID: [16]byte{1}, Server: [8]byte{1}, Client: [8]byte{1}, bits: sampled}
	k := tell(tel, r)
	o, z := newOTLP("edge", "1"), newZipkin("edge")
	var dst []byte
	for _, bench := range []struct {
		name string
		do   func([]byte, *told) []byte
	}{
		{"json", tel.sayer().appendJSON},
		{"text", tel.sayer().appendLine},
		{"otlp", func(dst []byte, k *told) []byte { dst, _ = o.append(dst, k); return dst }},
		{"zipkin", func(dst []byte, k *told) []byte { dst, _ = z.append(dst, k); return dst }},
		{"history", func(dst []byte, k *told) []byte {
			h := *k
			dst = append(dst, h.data[0])
			return dst
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				dst = bench.do(dst[:0], k)
			}
			b.ReportMetric(float64(len(dst)), "bytes")
		})
	}
}

func tracedConfig(propagate string) *l7.Config {
	cfg := someConfig()
	cfg.Telemetry.Tracing = &l7.Tracing{Sample: 0.1, Propagate: propagate, OTLP: "http://127.0.0.1:1/v1/traces"}
	return cfg
}

func BenchmarkTrace(b *testing.B) {
	for _, propagate := range []string{"w3c", "b3", "both"} {
		for _, from := range []string{"continue", "start"} {
			b.Run(propagate+"/"+from, func(b *testing.B) {
				tel := New(Options{Log: quiet()})
				tab := tel.Open(tracedConfig(propagate))
				w := tel.Worker(0)
				var head message.Head
				var tr Trace
				arena := make([]byte, 0, 1024)
				b.ReportAllocs()
				defer cpu(b)()
				for b.Loop() {
					fillHead(&head, from == "continue")
					arena = arena[:0]
					w.Extract(tab, &head, &tr)
					_, arena = w.RequestID(&head, arena)
					arena = w.Inject(tab, &head, &tr, arena)
				}
			})
		}
	}
}

var (
	exampleParent = []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	exampleState  = []byte("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
	exampleB3     = []byte("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")
	plainFields   = []string{"user-agent", "curl/8.5.0", "accept", "*/*", "x-custom", "v", "cookie", "a=b"}
	nameState     = []byte("tracestate")
)

// fillHead makes a head with a few fields, and perhaps trace context.
func fillHead(h *message.Head, traced bool) {
	h.Reset()
	h.Fields = append(h.Fields, plainHead...)
	if traced {
		h.Fields = append(h.Fields, message.Field{Name: nameTraceparent, Value: exampleParent, ID: message.Traceparent},
			message.Field{Name: nameState, Value: exampleState, ID: message.Tracestate},
			message.Field{Name: nameB3, Value: exampleB3, ID: message.B3})
	}
}

var plainHead = func() (fields []message.Field) {
	for i := 0; i < len(plainFields); i += 2 {
		fields = append(fields, message.Field{Name: []byte(plainFields[i]), Value: []byte(plainFields[i+1]), ID: message.Known(plainFields[i])})
	}
	return fields
}()
