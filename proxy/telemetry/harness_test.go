package telemetry

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"moire.dev/moire/snapshot/l7"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// someConfig has two routes, of two rules and of one, and two clusters.
func someConfig() *l7.Config {
	return &l7.Config{
		Name:      "edge",
		Listeners: []l7.Listener{{Name: "web"}, {Name: "tls"}},
		Routes: []l7.Route{
			{Name: "shop/front", Rules: []l7.Rule{{Name: "cart"}, {}}},
			{Name: "shop/pay", Rules: []l7.Rule{{}}},
		},
		Clusters: []l7.Cluster{{Name: "shop/cart"}, {Name: "shop/pay"}},
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// someRequest is one of someConfig, with everything in it.
func someRequest(tab *Table) *Request {
	r := &Request{}
	r.Reset()
	r.Table, r.Listener, r.Route, r.Cluster = tab, 0, tab.Rule(0, 0), 0
	r.Protocol, r.Status = HTTP11, 200
	r.Method, r.Host, r.Path = []byte("GET"), []byte("shop.example:8080"), []byte("/cart/items?id=7")
	r.RequestID, r.Agent = []byte("5f1c0e6a-0000-4000-8000-2b5c8d7e9f01"), []byte("curl/8.5.0")
	r.Forwarded, r.Caller = []byte("203.0.113.9, 10.0.0.7"), []byte("spiffe://shop/ns/shop/sa/web")
	r.Source = netip.MustParseAddrPort("10.1.0.9:51234")
	r.Local = netip.MustParseAddrPort("10.1.0.1:80")
	r.Upstream = netip.MustParseAddrPort("[fd00::7]:8080")
	r.In, r.Out = 12, 3456
	r.Start = 1_000_000
	r.UpstreamStart, r.FirstByte, r.UpstreamEnd, r.End = r.Start+50_000, r.Start+900_000, r.Start+1_000_000, r.Start+1_100_000
	return r
}

// run starts t.Run and returns what ends it.
func run(tb testing.TB, t *Telemetry) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- t.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				tb.Error(err)
			}
		case <-time.After(10 * time.Second):
			tb.Error("Run did not return")
		}
	}
	tb.Cleanup(stop)
	return stop
}

// eventually waits for what happens on other goroutines.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatal("in vain: ", what)
		}
	}
}

// foreignText is what a caller could send, at times far too long.
func foreignText(r *rand.Rand) []byte {
	var b []byte
	for range r.IntN(20) {
		switch r.IntN(6) {
		case 0:
			b = append(b, byte(r.Uint32()))
		case 1:
			b = append(b, "\r\n\t\"\\<>&\x00\x1b[2J\x7f"[r.IntN(14)])
		case 2:
			b = append(b, "é\u2028\u2029\U0001f600\u202e\ufeff\ufffd"...)
		case 3:
			b = append(b, "GET / HTTP/1.1\r\n"...)
		default:
			b = append(b, "abc/d?e=f;g"...)
		}
	}
	return b
}

// randomRequest has anything anywhere.
func randomRequest(r *rand.Rand, tab *Table) *Request {
	moment := func() int64 { return r.Int64N(3) * r.Int64N(1e10) }
	address := func() netip.AddrPort {
		var b [16]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		switch r.IntN(3) {
		case 0:
			return netip.AddrPort{}
		case 1:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), uint16(r.Uint32()))
		}
		return netip.AddrPortFrom(netip.AddrFrom16(b), uint16(r.Uint32()))
	}
	q := &Request{
		Table: tab, Listener: r.Int32N(4) - 1, Route: r.Int32N(5) - 1, Cluster: r.Int32N(4) - 1,
		Protocol: Protocol(r.IntN(int(lastProtocol))), Status: r.IntN(600), GRPC: r.IntN(20) - 1,
		Flags: Flags(r.Uint32() & r.Uint32() & r.Uint32() & (1<<lastFlag - 1)), Retries: r.IntN(3), Secure: r.IntN(2) == 0,
		Method: foreignText(r), Host: foreignText(r), Path: foreignText(r), RequestID: foreignText(r),
		Forwarded: foreignText(r), Agent: foreignText(r), Caller: foreignText(r),
		Source: address(), Local: address(), Upstream: address(),
		In: r.Uint64N(1000), Out: r.Uint64N(1000),
		Start: moment(), UpstreamStart: moment(), FirstByte: moment(), UpstreamEnd: moment(), End: moment(),
	}
	if r.IntN(2) == 0 {
		q.Trace = Trace{ID: [16]byte{byte(r.Uint32()), 15: 1}, Parent: [8]byte{byte(r.IntN(2))}, Server: [8]byte{7: 2}, Client: [8]byte{byte(r.IntN(2))},
			bits: traceBits(r.Uint32())}
	}
	return q
}

// tell makes r what the collector has of it.
func tell(t *Telemetry, r *Request) *told {
	k := &told{id: 7, worker: 1, offset: 1_800_000_000_000_000_000}
	// As in a ring, there is something left of another event.
	var e event
	for i := range e.data {
		e.data[i] = '\n'
	}
	e.fill(r)
	k.copy(&e)
	t.resolve(k)
	return k
}
