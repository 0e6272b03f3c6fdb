package tls

import (
	stdtls "crypto/tls"
	"runtime"
	"syscall"
	"testing"

	"moire.dev/moire/snapshot/l7"
)

// BenchmarkHandshake is a full handshake in mutual TLS, both ends together, by
// how the key is exchanged and whether the peers' chains are remembered; the
// chains have an intermediate.
func BenchmarkHandshake(b *testing.B) {
	ca := newCA(b, "ca")
	sub := newSub(b, ca, "sub")
	store := stored(b, sub.issue("x", withURI(b, webID), sub.pem))
	run := func(name string, known func() *Verified, curves ...stdtls.CurveID) {
		b.Run(name, func(b *testing.B) {
			server, err := ServerConfig(&l7.ServerTLS{Certificates: []string{"x"}, ClientCA: ca.pem, NoResumption: true}, l7.HTTP2, store, known())
			if err != nil {
				b.Fatal(err)
			}
			c, err := NewClient(&l7.ClientTLS{CA: ca.pem, Servers: []string{webID}, Certificate: "x"}, l7.HTTP2, store, known())
			if err != nil {
				b.Fatal(err)
			}
			client := mustConfig(b, c, "").Clone()
			client.CurvePreferences, server.CurvePreferences = curves, curves
			b.ReportAllocs()
			start := cpu()
			for b.Loop() {
				mustConnect(b, client, server)
			}
			b.ReportMetric(float64(cpu()-start)/1000/float64(b.N), "cpu-µs/op")
		})
	}
	none := func() *Verified { return nil }
	some := func() *Verified { return NewVerified(100) }
	run("P256/verified", none, stdtls.CurveP256)
	run("P256/known", some, stdtls.CurveP256)
	run("X25519/verified", none, stdtls.X25519)
	run("X25519/known", some, stdtls.X25519)
	run("X25519MLKEM768/known", some, stdtls.X25519MLKEM768, stdtls.X25519)
}

// cpu is the time of processors that this process used so far, in nanoseconds.
func cpu() int64 {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return r.Utime.Nano() + r.Stime.Nano()
}

// BenchmarkResumption is the same with a ticket.
func BenchmarkResumption(b *testing.B) {
	client, server := configs(b, 0, NewVerified(100))
	mustConnect(b, client, server)
	b.ReportAllocs()
	start := cpu()
	defer func() { b.ReportMetric(float64(cpu()-start)/1000/float64(b.N), "cpu-µs/op") }()
	for b.Loop() {
		if c, _ := mustConnect(b, client, server); !c.Facts().Resumed {
			b.Fatal("not resumed")
		}
	}
}

// BenchmarkFilter carries a request and an answer, sealed and opened at both ends.
func BenchmarkFilter(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"256B", 256}, {"16KiB", 16 << 10}, {"64KiB", 64 << 10}} {
		b.Run(size.name, func(b *testing.B) {
			client, server := configs(b, 0, nil)
			c, s := mustConnect(b, client, server)
			p, data := make([]byte, 64<<10), make([]byte, size.bytes)
			b.SetBytes(int64(2 * len(data)))
			b.ReportAllocs()
			for b.Loop() {
				move(b, c, s, data, p)
				move(b, s, c, data, p)
			}
		})
	}
}

func move(t testing.TB, from, to *Filter, data, p []byte) {
	if err := from.Write(data); err != nil {
		t.Fatal(err)
	}
	carry(from, to, 1<<20)
	for got := 0; ; {
		n, err := to.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		if got += n; n == 0 {
			if got != len(data) {
				t.Fatalf("%d bytes, want %d", got, len(data))
			}
			return
		}
	}
}

func BenchmarkPeekHello(b *testing.B) {
	hello := helloOf(b, &stdtls.Config{ServerName: "a.shop", NextProtos: []string{"h2", "http/1.1"}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := PeekHello(hello); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdle says how much memory an idle server connection holds, after 16
// KiB came over it, as a metric.
func BenchmarkIdle(b *testing.B) {
	client, server := configs(b, 0, NewVerified(100))
	mustConnect(b, client, server)
	const n = 500
	for b.Loop() {
		keep := make([]*Filter, n)
		before := heap()
		for i := range keep {
			c, s := mustConnect(b, client, server)
			move(b, c, s, make([]byte, 16<<10), make([]byte, 16<<10))
			s.Rest()
			keep[i] = s
		}
		b.ReportMetric(float64(heap()-before)/n, "B/conn")
		runtime.KeepAlive(keep)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
