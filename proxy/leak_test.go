package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/snapshot/l7"
)

// TestNothingIsLeft: what is under way when a proxy is ended, whatever it waits
// for, leaves no goroutine and no coroutine.
func TestNothingIsLeft(t *testing.T) {
	silent, came := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })
	web, tcp, tls := free(t), free(t), free(t)
	cfg := one(web, silent)
	secured := newCA(t)
	cfg.Certificates = []l7.Certificate{secured.certificate("server", "shop.example")}
	cfg.Listeners = append(cfg.Listeners, l7.Listener{Name: "tcp", Address: tcp, Protocol: l7.TCP},
		l7.Listener{Name: "tls", Address: tls, TLS: &l7.ServerTLS{Certificates: []string{"server"}}})
	cfg.Clusters = append(cfg.Clusters, l7.Cluster{Name: "raw", Protocol: l7.TCP, Endpoints: cfg.Clusters[0].Endpoints},
		l7.Cluster{Name: "secure", TLS: &l7.ClientTLS{Insecure: true}, Endpoints: cfg.Clusters[0].Endpoints},
		l7.Cluster{Name: "refused", Endpoints: []l7.Endpoint{{Address: refused(t)}}})
	to := func(path, cluster string) l7.Rule {
		return l7.Rule{Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: path}}}, Backends: []l7.Backend{{Cluster: cluster}}}
	}
	slow, again, copied := to("/slow", "c"), to("/again", "refused"), to("/copied", "c")
	slow.Fault = &l7.Fault{Delay: l7.Duration(time.Hour), DelayPercent: 100}
	again.Retry = &l7.Retry{Attempts: 3, Backoff: l7.Duration(time.Minute)}
	copied.Filters = []l7.Filter{{Mirror: &l7.Mirror{Cluster: "c"}}}
	cfg.Routes[0].Listeners = []string{"web", "tls"}
	cfg.Routes[0].Rules = append(cfg.Routes[0].Rules, slow, again, copied, to("/secure", "secure"))
	cfg.Routes = append(cfg.Routes, l7.Route{Name: "tcp", Kind: l7.TCPRoute, Listeners: []string{"tcp"}, Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: "raw"}}}}})

	before := goleak.IgnoreCurrent()
	p, err := New(Options{Workers: 2, Ring: ring})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	for _, path := range []string{"/", "/slow", "/again", "/copied", "/secure"} {
		io.WriteString(dial(t, web), "POST "+path+" HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
	}
	io.WriteString(dial(t, tcp), "hello")
	io.WriteString(dial(t, tls), "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	two := newWire2(t, dial(t, web), http2.Config{Client: true})
	two.ask(request2("GET", "/"), true)
	two.ask(request2("GET", "/slow"), true)
	two.flush()
	eventually(t, "the endpoint has what goes to it", func() bool { return came.Load() >= 6 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, before)
}
