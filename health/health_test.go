package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"moire.dev/moire/snapshot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func checkOf(n byte, kind string, interval time.Duration, failures, successes int) snapshot.Check {
	return snapshot.Check{
		CheckKey: snapshot.CheckKey{Addr: snapshot.Addr{VNI: 5, IP: netip.AddrFrom4([4]byte{10, 0, 0, n})}, Kind: kind, Port: 80},
		Interval: interval, Timeout: interval / 2, Failures: failures, Successes: successes,
	}
}

// world is what is really so, for a Prober with a clock of its own.
type world struct {
	mu    sync.Mutex
	dead  map[snapshot.CheckKey]bool
	asked map[snapshot.CheckKey]int
	most  atomic.Int64
	now   atomic.Int64
	takes time.Duration
}

func (w *world) probe(ctx context.Context, _ *Config, k snapshot.CheckKey) error {
	if n := w.now.Add(1); n > w.most.Load() {
		w.most.Store(n)
	}
	defer w.now.Add(-1)
	w.mu.Lock()
	w.asked[k]++
	dead := w.dead[k]
	w.mu.Unlock()
	if dead {
		<-ctx.Done() // a black hole
		return errTimeout
	}
	select {
	case <-time.After(w.takes):
	case <-ctx.Done():
	}
	return nil
}

func (w *world) kill(k snapshot.CheckKey, dead bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead[k] = dead
}

func (w *world) prober(changed func()) *Prober {
	w.dead, w.asked = map[snapshot.CheckKey]bool{}, map[snapshot.CheckKey]int{}
	p := New(Config{Changed: changed, Log: slog.New(slog.DiscardHandler)})
	p.probe = w.probe
	return p
}

func running(p *Prober) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() { cancel(); <-done }
}

// TestThresholds: a backend that dies is out within Interval times Failures
// and a timeout, and is back after as many successes as it needs.
func TestThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		changes := 0
		p := w.prober(func() { changes++ })
		defer running(p)()
		c := checkOf(1, "tcp", time.Second, 3, 2)
		p.Set([]snapshot.Check{c})
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if h := p.Health(); len(h) != 1 || !h[0].Healthy {
			t.Fatalf("%+v", h)
		}
		w.kill(c.CheckKey, true)
		died := time.Now()
		for len(p.Health()) == 0 || p.Health()[0].Healthy {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		if d := time.Since(died); d > 3*time.Second+c.Timeout+20*time.Millisecond || d < 2*time.Second {
			t.Errorf("found out after %s", d)
		}
		if h := p.Health()[0]; h.Error != errTimeout.Error() || h.Since.Before(died) {
			t.Errorf("%+v", h)
		}
		w.kill(c.CheckKey, false)
		back := time.Now()
		for !p.Health()[0].Healthy {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		if d := time.Since(back); d < 800*time.Millisecond || d > 3*time.Second {
			t.Errorf("back after %s", d)
		}
		if changes != 3 {
			t.Errorf("told %d times", changes)
		}
		// One failure among successes is none.
		w.kill(c.CheckKey, true)
		time.Sleep(time.Second)
		w.kill(c.CheckKey, false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if changes != 3 {
			t.Errorf("told %d times", changes)
		}
		p.Set(nil)
		synctest.Wait()
		if len(p.Health()) != 0 || changes != 4 {
			t.Errorf("%+v, told %d times", p.Health(), changes)
		}
	})
}

// TestBounded: many slow checks are never more at once than Probes, and all
// have their turn.
func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{takes: 50 * time.Millisecond}
		p := w.prober(nil)
		defer running(p)()
		var all []snapshot.Check
		for i := range 1000 {
			c := checkOf(byte(i), "tcp", 2*time.Second, 2, 1)
			c.Port = uint16(i)
			all = append(all, c)
		}
		p.Set(all)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := w.most.Load(); n != Probes {
			t.Errorf("%d at once", n)
		}
		for _, c := range all {
			if n := w.asked[c.CheckKey]; n < 4 || n > 7 {
				t.Fatalf("%d was asked %d times", c.Port, n)
			}
		}
		if len(p.Health()) != 1000 {
			t.Errorf("%d known", len(p.Health()))
		}
	})
}

// TestAsked: HTTP with a host and statuses, gRPC, and both in TLS, whatever the
// certificate.
func TestAsked(t *testing.T) {
	local := Config{In: func(f func() error) error { return f() }, Source4: netip.MustParseAddr("127.0.0.1"), Device: func(snapshot.VNI) string { return "lo" }}
	states := health.NewServer()
	states.SetServingStatus("slow", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	calls := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(calls, states)
	handler := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case q.ProtoMajor == 2 && q.Header.Get("Content-Type") == "application/grpc":
			calls.ServeHTTP(w, q)
		case q.Host != "shop.example":
			w.WriteHeader(404)
		default:
			w.WriteHeader(204)
		}
	})
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	both.SetUnencryptedHTTP2(true)
	for _, secure := range []bool{false, true} {
		s := httptest.NewUnstartedServer(handler)
		s.Config.Protocols = both
		if s.EnableHTTP2 = secure; secure {
			s.StartTLS()
		} else {
			s.Start()
		}
		ask := func(k snapshot.CheckKey) string {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			at := netip.MustParseAddrPort(s.Listener.Addr().String())
			k.Addr.IP, k.Port, k.TLS = at.Addr(), at.Port(), secure
			if err := probe(ctx, &local, k); err != nil {
				return err.Error()
			}
			return ""
		}
		for _, c := range []struct {
			key  snapshot.CheckKey
			want string
		}{
			{snapshot.CheckKey{Kind: "http", Path: "/", Host: "shop.example", Statuses: "200,204"}, ""},
			{snapshot.CheckKey{Kind: "http", Path: "/", Host: "shop.example", Statuses: "200"}, "status 204"},
			{snapshot.CheckKey{Kind: "http", Path: "/", Statuses: "200,204"}, "status 404"},
			{snapshot.CheckKey{Kind: "grpc"}, ""},
			{snapshot.CheckKey{Kind: "grpc", Service: "slow"}, "it is NOT_SERVING"},
			{snapshot.CheckKey{Kind: "grpc", Service: "none"}, "gRPC NotFound"},
		} {
			if got := ask(c.key); got != c.want {
				t.Errorf("TLS %t, %+v: %q, want %q", secure, c.key, got, c.want)
			}
		}
		s.Close()
	}
}

// TestKinds: echo, TCP and HTTP over the loopback, IPv4 and IPv6.
func TestKinds(t *testing.T) {
	local := Config{
		In: func(f func() error) error { return f() }, Source4: netip.MustParseAddr("127.0.0.1"), Source6: netip.IPv6Loopback(),
		Device: func(v snapshot.VNI) string {
			if v == 5 {
				return "lo"
			}
			return ""
		},
	}
	for _, ip := range []netip.Addr{local.Source4, local.Source6} {
		l, err := net.Listen("tcp", net.JoinHostPort(ip.String(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path != "/fine" {
				w.WriteHeader(503)
			}
			fmt.Fprintln(w, "hello")
		})}
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		port := netip.MustParseAddrPort(l.Addr().String()).Port()
		ask := func(kind string, port uint16, path string, vni snapshot.VNI) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return probe(ctx, &local, snapshot.CheckKey{Addr: snapshot.Addr{VNI: vni, IP: ip}, Kind: kind, Port: port, Path: path})
		}
		for name, c := range map[string]struct{ got, want error }{
			"tcp":     {ask("tcp", port, "", 5), nil},
			"refused": {ask("tcp", 1, "", 5), errors.New("connection refused")},
			"http":    {ask("http", port, "fine", 5), nil},
			"status":  {ask("http", port, "/", 5), errors.New("status 503")},
			"gone":    {ask("http", 1, "/", 5), errors.New("connection refused")},
			"nowhere": {ask("tcp", port, "", 6), errors.New("this node is not in network 6 yet")},
			"unknown": {ask("smtp", port, "", 5), errors.New(`this node knows no check "smtp"`)},
		} {
			if fmt.Sprint(c.got) != fmt.Sprint(c.want) {
				t.Errorf("%s of %s: %v, want %v", name, ip, c.got, c.want)
			}
		}
		if err := ask("icmp", 0, "", 5); err != nil && !errors.Is(err, syscall.EPERM) {
			t.Errorf("echo to %s: %v", ip, err)
		}
		s.Close()
		<-done
	}
}
