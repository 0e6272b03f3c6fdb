package proxy

import (
	"bufio"
	"context"
	stdtls "crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// secure makes the listener of cfg speak TLS with a certificate of a.
func secure(cfg *l7.Config, a *ca, names ...string) {
	cfg.Certificates = append(cfg.Certificates, a.certificate("cert", names...))
	cfg.Listeners[0].TLS = &l7.ServerTLS{Certificates: []string{"cert"}}
}

// secureClient speaks TLS to address, whatever the URL says.
func secureClient(t testing.TB, address string, two bool, conf *stdtls.Config) *http.Client {
	c := client(t, false)
	tr := c.Transport.(*http.Transport)
	tr.Protocols.SetHTTP1(!two)
	tr.Protocols.SetHTTP2(two)
	tr.TLSClientConfig = conf
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	return c
}

// secureServer is an endpoint that speaks TLS.
func secureServer(t testing.TB, h http.HandlerFunc, two bool, conf *stdtls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, TLSConfig: conf, Protocols: new(http.Protocols), ErrorLog: quiet()}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(two)
	go s.ServeTLS(l, "", "")
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func proto(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	name := ""
	if r.TLS != nil {
		name = r.TLS.ServerName
		if len(r.TLS.PeerCertificates) > 0 {
			name += " from " + r.TLS.PeerCertificates[0].URIs[0].String()
		}
	}
	fmt.Fprintf(w, "%s %d %s", r.Proto, len(b), name)
}

// TestTLSBothSides: terminated and originated, every ALPN.
func TestTLSBothSides(t *testing.T) {
	a := newCA(t)
	body := strings.Repeat("0123456789", 30_000)
	for _, up := range []struct {
		protocol l7.Protocol
		two      bool
		want     string
	}{{l7.HTTP1, true, "HTTP/1.1"}, {l7.HTTP2, true, "HTTP/2.0"}, {l7.AutoHTTP, true, "HTTP/2.0"}, {l7.AutoHTTP, false, "HTTP/1.1"}} {
		address := free(t)
		cfg := one(address, secureServer(t, proto, up.two, &stdtls.Config{Certificates: []stdtls.Certificate{a.pair("shop.example")}}))
		secure(cfg, a, "shop.example")
		cfg.Clusters[0].Protocol = up.protocol
		cfg.Clusters[0].TLS = &l7.ClientTLS{CA: a.pem}
		start(t, cfg)
		for _, two := range []bool{false, true} {
			c := secureClient(t, address, two, &stdtls.Config{RootCAs: a.pool})
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					n := i * len(body) / 8
					status, got, _ := send(t, c, "POST", "https://shop.example/", body[:n])
					if status != 200 || got != fmt.Sprint(up.want, " ", n, " shop.example") {
						t.Errorf("%v, caller two=%v: %d %q", up, two, status, got)
					}
				})
			}
			wg.Wait()
		}
	}
}

// TestEndpointsAreVerified: a wrong authority, a wrong name, a wrong identity.
func TestEndpointsAreVerified(t *testing.T) {
	a, other := newCA(t), newCA(t)
	up := secureServer(t, proto, false, &stdtls.Config{Certificates: []stdtls.Certificate{a.pair("shop.example", "spiffe://shop/db")}})
	for _, c := range []struct {
		name   string
		conf   l7.ClientTLS
		status int
	}{
		{"name", l7.ClientTLS{CA: a.pem, ServerName: "shop.example"}, 200},
		{"identity", l7.ClientTLS{CA: a.pem, ServerName: "x", Servers: []string{"spiffe://shop/db"}}, 200},
		{"wrong CA", l7.ClientTLS{CA: other.pem, ServerName: "shop.example"}, 503},
		{"wrong name", l7.ClientTLS{CA: a.pem, ServerName: "other.example"}, 503},
		{"wrong identity", l7.ClientTLS{CA: a.pem, ServerName: "x", Servers: []string{"spiffe://shop/web"}}, 503},
		{"unverified", l7.ClientTLS{Insecure: true}, 200},
	} {
		address := free(t)
		cfg := one(address, up)
		cfg.Clusters[0].TLS = &c.conf
		start(t, cfg)
		if status, _, _ := get(t, client(t, false), "http://"+address+"/"); status != c.status {
			t.Errorf("%s: %d, want %d", c.name, status, c.status)
		}
	}
}

// TestMutualTLS: who calls is verified and told; we show who we are.
func TestMutualTLS(t *testing.T) {
	a, other := newCA(t), newCA(t)
	address := free(t)
	up := secureServer(t, proto, false, &stdtls.Config{Certificates: []stdtls.Certificate{a.pair("shop.example")}, ClientAuth: stdtls.RequireAndVerifyClientCert, ClientCAs: a.pool})
	cfg := one(address, up)
	secure(cfg, a, "shop.example")
	cfg.Listeners[0].TLS.ClientCA = a.pem
	cfg.Listeners[0].TLS.Callers = []string{"spiffe://shop/web"}
	cfg.Certificates = append(cfg.Certificates, a.certificate("ours", "spiffe://shop/proxy"))
	cfg.Clusters[0].TLS = &l7.ClientTLS{CA: a.pem, ServerName: "shop.example", Certificate: "ours"}
	p := start(t, cfg)
	for _, two := range []bool{false, true} {
		good := &stdtls.Config{RootCAs: a.pool, Certificates: []stdtls.Certificate{a.pair("spiffe://shop/web")}}
		if status, body, _ := get(t, secureClient(t, address, two, good), "https://shop.example/"); status != 200 || !strings.Contains(body, "from spiffe://shop/proxy") {
			t.Errorf("%d %q", status, body)
		}
		eventually(t, "the record says who called", func() bool {
			return strings.Contains(fmt.Sprintf("%+v", p.Telemetry().Last(20)), "spiffe://shop/web")
		})
		for name, certs := range map[string][]stdtls.Certificate{"nobody": nil, "a stranger": {other.pair("spiffe://shop/web")}, "somebody else": {a.pair("spiffe://shop/db")}} {
			c := secureClient(t, address, two, &stdtls.Config{RootCAs: a.pool, Certificates: certs})
			if resp, err := c.Get("https://shop.example/"); err == nil {
				t.Errorf("%s gets %d", name, resp.StatusCode)
			}
		}
	}
}

// TestListenersOnOneAddress: the name chooses, and a connection for one name is
// not good for another whose trust differs.
func TestListenersOnOneAddress(t *testing.T) {
	a := newCA(t)
	address := free(t)
	cfg := one(address, server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) }))
	cfg.Certificates = []l7.Certificate{a.certificate("open", "open.example"), a.certificate("closed", "closed.example")}
	cfg.Listeners = []l7.Listener{
		{Name: "open", Address: address, Hostname: "open.example", TLS: &l7.ServerTLS{Certificates: []string{"open"}}},
		{Name: "closed", Address: address, Hostname: "closed.example", TLS: &l7.ServerTLS{Certificates: []string{"closed"}, ClientCA: a.pem}},
	}
	start(t, cfg)
	for _, two := range []bool{false, true} {
		c := secureClient(t, address, two, &stdtls.Config{RootCAs: a.pool})
		if status, body, _ := get(t, c, "https://open.example/"); status != 200 || body != "open.example" {
			t.Errorf("%d %q", status, body)
		}
		if resp, err := c.Get("https://closed.example/"); err == nil {
			t.Errorf("closed.example without a certificate: %d", resp.StatusCode)
		}
		if status, _, _ := send(t, c, "GET", "https://open.example/", "", "Host", "closed.example"); status != 421 {
			t.Errorf("closed.example on the connection of open.example: %d", status)
		}
		if resp, err := c.Get("https://nobody.example/"); err == nil {
			t.Errorf("a name that nobody has: %d", resp.StatusCode)
		}
	}
	if got := raw1(t, address, "GET / HTTP/1.1\r\nHost: open.example\r\n\r\n"); got != "" && !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("without TLS: %q", got)
	}
}

// TestCertificatesAreReplaced on disk, under load: none fails, and the new one is
// shown within a few seconds.
func TestCertificatesAreReplaced(t *testing.T) {
	a := newCA(t)
	dir := t.TempDir()
	files := [2]string{filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")}
	write := func() {
		chain, key := a.issue("shop.example")
		for i, s := range []string{chain, key} {
			if err := os.WriteFile(files[i]+".new", []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(files[i]+".new", files[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	address := free(t)
	cfg := one(address, server(t, func(w http.ResponseWriter, r *http.Request) {}))
	cfg.Certificates = []l7.Certificate{{Name: "cert", ChainFile: files[0], KeyFile: files[1]}}
	cfg.Listeners[0].TLS = &l7.ServerTLS{Certificates: []string{"cert"}}
	start(t, cfg)
	shown := func() string {
		c, err := stdtls.Dial("tcp", address, &stdtls.Config{RootCAs: a.pool, ServerName: "shop.example"})
		if err != nil {
			t.Error(err)
			return ""
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	var over atomic.Bool
	var wg sync.WaitGroup
	for i := range 3 {
		c := secureClient(t, address, i == 1, &stdtls.Config{RootCAs: a.pool})
		c.Transport.(*http.Transport).DisableKeepAlives = i == 2
		wg.Go(func() {
			for !over.Load() {
				resp, err := c.Get("https://shop.example/")
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
			}
		})
	}
	first := shown()
	write()
	began := time.Now()
	for shown() == first && time.Since(began) < 5*time.Second {
		time.Sleep(20 * time.Millisecond)
	}
	if shown() == first {
		t.Error("the old certificate is still shown after 5 s")
	}
	over.Store(true)
	wg.Wait()
}

// TestPassThrough: TCP, and TLS by name, unopened; half-closed both ways.
func TestPassThrough(t *testing.T) {
	a := newCA(t)
	reverse := func(_ int, c net.Conn, r *bufio.Reader) { // says nothing until the caller has ended
		b, err := io.ReadAll(r)
		if err != nil {
			return
		}
		fmt.Fprintf(c, "%d bytes", len(b))
	}
	plain, _ := endpoint1(t, reverse)
	web := secureServer(t, proto, true, &stdtls.Config{Certificates: []stdtls.Certificate{a.pair("web.example")}})
	tcp, tls := free(t), free(t)
	cfg := &l7.Config{Name: "test",
		Listeners: []l7.Listener{{Name: "tcp", Address: tcp, Protocol: l7.TCP}, {Name: "tls", Address: tls, Protocol: l7.TLS}},
		Clusters:  []l7.Cluster{{Name: "plain", Protocol: l7.TCP, Endpoints: []l7.Endpoint{{Address: plain}}}, {Name: "web", Protocol: l7.TCP, Endpoints: []l7.Endpoint{{Address: web}}}},
		Routes: []l7.Route{{Name: "tcp", Kind: l7.TCPRoute, Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: "plain"}}}}},
			{Name: "tls", Kind: l7.TLSRoute, Hostnames: []string{"web.example"}, Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: "web"}}}}}}}
	p := start(t, cfg)
	c := dial(t, tcp)
	go func() {
		c.Write(make([]byte, 3_000_000))
		c.(*net.TCPConn).CloseWrite()
	}()
	if b, err := io.ReadAll(c); err != nil || string(b) != "3000000 bytes" {
		t.Errorf("TCP: %q %v", b, err)
	}
	for _, two := range []bool{false, true} {
		if status, body, _ := get(t, secureClient(t, tls, two, &stdtls.Config{RootCAs: a.pool}), "https://web.example/"); status != 200 || !strings.Contains(body, "web.example") {
			t.Errorf("TLS: %d %q", status, body)
		}
	}
	if _, err := secureClient(t, tls, false, &stdtls.Config{RootCAs: a.pool}).Get("https://other.example/"); err == nil {
		t.Error("a name without a route got through")
	}
	c.Close()
	eventually(t, "nothing is left of the first", func() bool { return p.State().Clusters[0].Connections == 0 })
}
