package datapath

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/snapshot"
)

// stream is traffic as fast as it goes, from one namespace to another.
type stream struct {
	network, from, to, addr string
	flows                   int
	payload                 int // of a UDP datagram
	pace                    int // UDP bits per second of each flow, 0: as fast as it goes
}

// flood runs the streams at once and says how many bits per second of IP packets
// arrive of each, from a moment after the beginning on.
func flood(t *testing.T, span time.Duration, streams ...stream) []float64 {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	arrived := make([]atomic.Uint64, len(streams))
	for i, s := range streams {
		inNetns(t, s.to, func() error { return sink(ctx, &all, s, &arrived[i]) })
		inNetns(t, s.from, func() error {
			for range s.flows {
				c, err := (&net.Dialer{Timeout: 3 * time.Second}).Dial(s.network, net.JoinHostPort(s.addr, "9"))
				if err != nil {
					return err
				}
				context.AfterFunc(ctx, func() { c.Close() })
				all.Go(func() { send(ctx, c, s) })
			}
			return nil
		})
	}
	time.Sleep(600 * time.Millisecond)
	before, began := make([]uint64, len(streams)), time.Now()
	for i := range streams {
		before[i] = arrived[i].Load()
	}
	time.Sleep(span)
	seconds := time.Since(began).Seconds()
	rates := make([]float64, len(streams))
	for i, s := range streams {
		rates[i] = float64(arrived[i].Load()-before[i]) * 8 / seconds * s.packetPerPayload()
	}
	return rates
}

// packetPerPayload is the size of an IP packet, in relation to what is in it.
func (s *stream) packetPerPayload() float64 {
	ip := 20.0
	if netip.MustParseAddr(s.addr).Is6() {
		ip = 40
	}
	if s.network == "udp" {
		return (float64(s.payload) + 8 + ip) / float64(s.payload)
	}
	return 1450 / (1450 - ip - 32)
}

// sink counts what arrives at port 9.
func sink(ctx context.Context, all *sync.WaitGroup, s stream, arrived *atomic.Uint64) error {
	count := func(r interface{ Read([]byte) (int, error) }) {
		b := make([]byte, 1<<16)
		for {
			n, err := r.Read(b)
			arrived.Add(uint64(n))
			if err != nil {
				return
			}
		}
	}
	if s.network == "udp" {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(s.addr), 9)))
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { c.Close() })
		all.Go(func() { count(c) })
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(s.addr, "9"))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { c.Close() })
			all.Go(func() { count(c) })
		}
	})
	return nil
}

func send(ctx context.Context, c net.Conn, s stream) {
	size := s.payload
	if s.network != "udp" {
		size = 1 << 16
	}
	b, began, sent := make([]byte, size), time.Now(), 0
	for ctx.Err() == nil {
		if n, err := c.Write(b); err == nil {
			sent += n
		} else if s.network != "udp" {
			return
		}
		if s.pace > 0 {
			time.Sleep(time.Duration(float64(sent)*8/float64(s.pace)*1e9) - time.Since(began))
		}
	}
}

// within 10 %.
func within(got, want float64) bool { return got >= 0.9*want && got <= 1.1*want }

// TestInterfaceLimits: what an interface may send and receive, by TCP with one
// and with several flows and by UDP, of both families, on one node and two.
func TestInterfaceLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("rates are measured without the race detector, which is too slow for them")
	}
	w := small(t)
	web := snapshot.AttachmentKey{Project: "acme", Workload: "web", Network: "net"}
	const up, down = 40e6, 200e6
	limit := func(up, down uint64) {
		w.grants[web] = snapshot.Grant{AttachmentKey: web, VNI: 100, Limit: snapshot.Limit{Egress: up, Ingress: down}}
		w.apply()
	}
	limit(up, down)
	ns := func(name string) string { return "moire-dp-acme-" + name }
	for name, c := range map[string]struct {
		stream
		want float64
	}{
		"tcp out":          {stream{network: "tcp", from: ns("web"), to: ns("db"), addr: "10.1.0.3", flows: 1}, up},
		"tcp out, 4 flows": {stream{network: "tcp", from: ns("web"), to: ns("far"), addr: "fd10:1::4", flows: 4}, up},
		"tcp in":           {stream{network: "tcp", from: ns("far"), to: ns("web"), addr: "10.1.0.2", flows: 1}, down},
		"tcp in, 4 flows":  {stream{network: "tcp", from: ns("db"), to: ns("web"), addr: "fd10:1::2", flows: 4}, down},
		"udp out":          {stream{network: "udp", from: ns("web"), to: ns("far"), addr: "10.1.0.4", flows: 1, payload: 1200, pace: 80e6}, up},
		"udp out, small":   {stream{network: "udp", from: ns("web"), to: ns("db"), addr: "fd10:1::3", flows: 1, payload: 200, pace: 60e6}, up},
		"udp in":           {stream{network: "udp", from: ns("db"), to: ns("web"), addr: "10.1.0.2", flows: 1, payload: 1400, pace: 300e6}, down},
	} {
		t.Run(name, func(t *testing.T) {
			got := flood(t, time.Second, c.stream)[0]
			for range 3 { // on a busy machine it may be the sender that is slow
				if got >= 0.9*c.want {
					break
				}
				t.Logf("only %.1f Mbit/s of %.0f", got/1e6, c.want/1e6)
				got = flood(t, time.Second, c.stream)[0]
			}
			t.Logf("%.1f Mbit/s of %.0f", got/1e6, c.want/1e6)
			if !within(got, c.want) {
				t.Errorf("%.1f Mbit/s, the limit is %.0f", got/1e6, c.want/1e6)
			}
		})
	}
	limited := uint64(0)
	for _, c := range w.nodes["a"].Drops() {
		if c.Reason == "limit" {
			limited += c.Packets
		}
	}
	if limited == 0 {
		t.Error("no drop was counted as limit")
	}
	limit(0, 0)
	if got := flood(t, time.Second, stream{network: "tcp", from: ns("web"), to: ns("db"), addr: "10.1.0.3", flows: 1})[0]; got < 3*up {
		t.Errorf("%.1f Mbit/s after the limit is gone", got/1e6)
	}
	if out := sh(t, "ip -n moire-dp-a link"); strings.Contains(out, ": "+throttled) || strings.Contains(out, ": "+queuePrefix) || strings.Contains(out, "tbf") {
		t.Errorf("left a queue:\n%s", out)
	}
}

// TestNetworkLimit: all of a Network together have its limit, and the other
// tenant has what it had, to a tenth.
func TestNetworkLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("rates are measured without the race detector, which is too slow for them")
	}
	w := twoTenants(t, false)
	other := stream{network: "udp", from: "moire-dp-bolt-web", to: "moire-dp-bolt-db", addr: "10.2.0.3", flows: 1, payload: 1400, pace: 100e6}
	alone := flood(t, time.Second, other)[0]
	n := w.networks[100]
	n.Limit = snapshot.Limit{Egress: 50e6}
	w.networks[100] = n
	w.apply()
	got := flood(t, 3*time.Second, other,
		stream{network: "tcp", from: "moire-dp-acme-web", to: "moire-dp-acme-db", addr: "10.2.0.3", flows: 2},
		stream{network: "tcp", from: "moire-dp-acme-web", to: "moire-dp-acme-far", addr: "10.1.0.4", flows: 2})
	t.Logf("network: %.1f and %.1f of 50 together; the other tenant: %.1f alone, %.1f beside", got[1]/1e6, got[2]/1e6, alone/1e6, got[0]/1e6)
	if !within(got[1]+got[2], 50e6) {
		t.Errorf("the Network had %.1f Mbit/s of 50", (got[1]+got[2])/1e6)
	}
	one := flood(t, time.Second, stream{network: "tcp", from: "moire-dp-acme-web", to: "moire-dp-acme-far", addr: "10.1.0.4", flows: 1})[0]
	if !within(one, 50e6) {
		t.Errorf("one flow of the Network had %.1f Mbit/s of 50", one/1e6)
	}
	if got[0] < 0.9*alone {
		t.Errorf("the other tenant had %.1f Mbit/s beside it, %.1f alone", got[0]/1e6, alone/1e6)
	}
}
