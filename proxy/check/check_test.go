package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"moire.dev/moire/snapshot/l7"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// told is what a Checker reported.
type told struct {
	address string
	well    bool
	why     string
}

// start a Checker of these addresses; the channel has what it reports.
func start(t *testing.T, c *Checker, addresses ...string) <-chan told {
	t.Helper()
	all := make(chan told, 100)
	c.Report = func(address string, well bool, why string) { all <- told{address, well, why} }
	if c.Check.Interval == 0 {
		c.Check.Interval = l7.Duration(10 * time.Millisecond)
	}
	c.Check.Timeout = l7.Duration(5 * time.Second)
	c.Endpoints(addresses)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
	return all
}

func next(t *testing.T, all <-chan told) told {
	t.Helper()
	select {
	case x := <-all:
		return x
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is reported")
		return told{}
	}
}

func want(t *testing.T, got told, well bool, why string) {
	t.Helper()
	if got.well != well || !strings.Contains(got.why, why) || well != (got.why == "") {
		t.Errorf("%+v, want %t because of %q", got, well, why)
	}
}

// webServer answers with a status that a test sets.
func webServer(t *testing.T, secure, http2 bool) (*httptest.Server, *atomic.Int64, *atomic.Pointer[http.Request]) {
	t.Helper()
	var status atomic.Int64
	var last atomic.Pointer[http.Request]
	status.Store(200)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last.Store(r)
		w.WriteHeader(int(status.Load()))
		fmt.Fprintln(w, "hello")
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(!http2)
	s.Config.Protocols.SetHTTP2(http2 && secure)
	s.Config.Protocols.SetUnencryptedHTTP2(http2 && !secure)
	s.EnableHTTP2 = http2
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s, &status, &last
}

func trust(s *httptest.Server) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{RootCAs: pool, ServerName: "example.com"}
}

func TestHTTP(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("tls=%t,http2=%t", secure, http2), func(t *testing.T) {
				s, status, last := webServer(t, secure, http2)
				c := &Checker{Check: l7.Check{Kind: "http", Path: "/ready?full=1", Host: "shop.example", Statuses: []int{200, 204}, Failed: 2}, HTTP2: http2}
				if secure {
					c.TLS = trust(s)
				}
				all := start(t, c, s.Listener.Addr().String())
				want(t, next(t, all), true, "")
				r := last.Load()
				if r.Host != "shop.example" || r.RequestURI != "/ready?full=1" || r.Method != http.MethodGet || (r.ProtoMajor == 2) != http2 || r.UserAgent() != agent {
					t.Errorf("asked %s %s of %s over %s as %s", r.Method, r.RequestURI, r.Host, r.Proto, r.UserAgent())
				}
				status.Store(503)
				want(t, next(t, all), false, "status 503")
				status.Store(204)
				want(t, next(t, all), true, "")
			})
		}
	}
}

// Somebody else's certificate is not well.
func TestTLSIsVerified(t *testing.T) {
	s, _, _ := webServer(t, true, false)
	h2, _, _ := webServer(t, true, true)
	for kind, s := range map[string]*httptest.Server{"http": s, "grpc": h2, "tcp": s} {
		c := &Checker{Check: l7.Check{Kind: kind}, TLS: &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}}
		want(t, next(t, start(t, c, s.Listener.Addr().String())), false, "certificate")
	}
	c := &Checker{Check: l7.Check{Kind: "tcp"}, TLS: trust(s)}
	want(t, next(t, start(t, c, s.Listener.Addr().String())), true, "")
	// Without a name it is the address that the certificate must be for.
	c = &Checker{Check: l7.Check{Kind: "tcp"}, TLS: trust(s)}
	c.TLS.ServerName = ""
	want(t, next(t, start(t, c, s.Listener.Addr().String())), true, "")
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	all := start(t, &Checker{Check: l7.Check{Kind: "tcp"}}, l.Addr().String())
	want(t, next(t, all), true, "")
	l.Close()
	want(t, next(t, all), false, "refused")
}

// The judge is grpc-go's own health server.
func TestGRPC(t *testing.T) {
	secure, _, _ := webServer(t, true, true) // for its certificate
	for _, withTLS := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%t", withTLS), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var options []grpc.ServerOption
			c := &Checker{Check: l7.Check{Kind: "grpc", Service: "shop.Cart"}}
			if withTLS {
				options = append(options, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: secure.TLS.Certificates})))
				c.TLS = trust(secure)
			}
			server, state := grpc.NewServer(options...), health.NewServer()
			grpc_health_v1.RegisterHealthServer(server, state)
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }()
			defer func() {
				server.Stop()
				<-served
			}()
			all := start(t, c, l.Addr().String())
			want(t, next(t, all), false, "grpc-status 5") // NOT_FOUND: no such service
			state.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_SERVING)
			want(t, next(t, all), true, "")
			state.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
			want(t, next(t, all), false, "health is 2")
			state.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_SERVING)
			want(t, next(t, all), true, "")
		})
	}
}

// Endpoints come and go while it runs; who went is not heard of again.
func TestEndpointsChange(t *testing.T) {
	a, _, _ := webServer(t, false, false)
	b, _, _ := webServer(t, false, false)
	c := &Checker{Check: l7.Check{Kind: "http"}}
	all := start(t, c, a.Listener.Addr().String())
	if got := next(t, all); got.address != a.Listener.Addr().String() || !got.well {
		t.Errorf("%+v", got)
	}
	c.Endpoints([]string{b.Listener.Addr().String()})
	if got := next(t, all); got.address != b.Listener.Addr().String() || !got.well {
		t.Errorf("%+v", got)
	}
	a.Close()
	select {
	case got := <-all:
		t.Errorf("%+v", got)
	case <-time.After(100 * time.Millisecond):
	}
}

func TestUnknownKind(t *testing.T) {
	if err := (&Checker{Check: l7.Check{Kind: "icmp"}}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "icmp") {
		t.Errorf("error %v", err)
	}
}

// One answer decides at first; after that two good ones or three bad ones in a row.
func TestVerdict(t *testing.T) {
	v := verdict{}.defaults()
	for i, step := range []struct{ ok, news, well bool }{
		{true, true, true},
		{false, false, true}, {false, false, true}, {true, false, true},
		{false, false, true}, {false, false, true}, {false, true, false},
		{false, false, false}, {true, false, false}, {false, false, false},
		{true, false, false}, {true, true, true}, {true, false, true},
	} {
		if news := v.take(step.ok); news != step.news || v.well != step.well {
			t.Errorf("answer %d: news %t, well %t, want %t, %t", i, news, v.well, step.news, step.well)
		}
	}
}

func FuzzHealthStatus(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 7, 18, 1, 'x', 8, 1, 13, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = healthStatus(b)
	})
}
