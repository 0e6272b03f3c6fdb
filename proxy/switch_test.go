package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// load asks again and again on several connections, over HTTP/1 and HTTP/2, and
// fails the test when an answer is not what want says. The load ends with stop.
func load(t *testing.T, address string, want func(body string) bool) (served *atomic.Int64, stop func()) {
	t.Helper()
	var over atomic.Bool
	var wg sync.WaitGroup
	served = new(atomic.Int64)
	for i := range 6 {
		c := client(t, i%2 == 1)
		wg.Go(func() {
			for !over.Load() {
				resp, err := c.Get("http://" + address + "/")
				if err != nil {
					t.Errorf("after %d: %v", served.Load(), err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || !want(string(b)) {
					t.Errorf("after %d: %d %q %v", served.Load(), resp.StatusCode, b, err)
					return
				}
				served.Add(1)
			}
		})
	}
	return served, func() {
		over.Store(true)
		wg.Wait()
	}
}

// TestSwitchingUnderLoad changes listeners, routes and clusters, their order and
// their endpoints, a hundred times under load.
func TestSwitchingUnderLoad(t *testing.T) {
	address := free(t)
	up := make([]string, 4)
	for i := range up {
		up[i] = server2(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "same") })
	}
	config := func(i int) *l7.Config {
		cfg := one(address, up[i%4], up[(i+1)%4])
		cfg.Clusters[0].Circuit.Requests = 500 + i
		if i%3 == 0 {
			cfg.Clusters[0].Protocol = l7.HTTP2
		}
		// Another cluster, listener and route come and go in front.
		other := one(free(t), refused(t))
		other.Clusters[0].Name, other.Listeners[0].Name, other.Routes[0].Name = "other", "other", "a"
		other.Routes[0].Rules[0].Backends[0].Cluster = "other"
		other.Routes[0].Listeners, cfg.Routes[0].Listeners = []string{"other"}, []string{"web"}
		if i%2 == 0 {
			cfg.Clusters = append(other.Clusters, cfg.Clusters...)
			cfg.Listeners = append(other.Listeners, cfg.Listeners...)
			cfg.Routes = append(other.Routes, cfg.Routes...)
		}
		onlyRule := &cfg.Routes[len(cfg.Routes)-1].Rules[0]
		if i%5 == 0 { // a request waits while the configuration changes
			onlyRule.Fault = &l7.Fault{Delay: l7.Duration(8 * time.Millisecond), DelayPercent: 20}
		}
		return cfg
	}
	p := start(t, config(0))
	served, stop := load(t, address, func(b string) bool { return b == "same" })
	for i := range 100 {
		before := served.Load()
		if err := p.Apply(config(i + 1)); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Second); served.Load() < before+5 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
	}
	last := one(address, up[0])
	if err := p.Apply(last); err != nil {
		t.Fatal(err)
	}
	stop()
	eventually(t, "what is left is idle", func() bool {
		s := p.State()
		return len(s.Clusters) == 1 && s.Clusters[0].Active == 0 && s.Clusters[0].Pending == 0
	})
	t.Logf("%d served over 100 switches", served.Load())
}

// TestOldPoolsAreDrained: connections to an endpoint that is no more are closed,
// those in use after their answer.
func TestOldPoolsAreDrained(t *testing.T) {
	for _, two := range []bool{false, true} {
		address := free(t)
		let := make(chan struct{})
		var open atomic.Int32
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				<-let
			}
			io.WriteString(w, "old")
		}), ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Add(-1)
			}
		}}
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
		before, after := one(address, l.Addr().String()), one(address, server2(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "new") }))
		if two {
			before.Clusters[0].Protocol, after.Clusters[0].Protocol = l7.HTTP2, l7.HTTP2
		}
		p := start(t, before)
		c := client(t, false)
		var wg sync.WaitGroup
		get(t, c, "http://"+address+"/")
		wg.Go(func() {
			if _, body, _ := get(t, c, "http://"+address+"/wait"); body != "old" {
				t.Errorf("two=%v: %q", two, body)
			}
		})
		eventually(t, "one is under way", func() bool { return p.State().Clusters[0].Active == 1 })
		if err := p.Apply(after); err != nil {
			t.Fatal(err)
		}
		if _, body, _ := get(t, c, "http://"+address+"/"); body != "new" {
			t.Errorf("two=%v: %q after the switch", two, body)
		}
		close(let)
		wg.Wait()
		eventually(t, "the old connections are closed", func() bool { return open.Load() == 0 })
	}
}

// TestARemovedListener is closed; its connections get one more answer, the last.
func TestARemovedListener(t *testing.T) {
	address, other := free(t), free(t)
	up := server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") })
	cfg := one(address, up)
	cfg.Listeners = append([]l7.Listener{{Name: "other", Address: other}}, cfg.Listeners...)
	p := start(t, cfg)
	c := dial(t, other)
	r := bufio.NewReader(c)
	ask := func() (*http.Response, string) {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		return resp, string(b)
	}
	if resp, body := ask(); body != "here" || resp.Close {
		t.Fatalf("%q", body)
	}
	if err := p.Apply(one(address, up)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody listens there", func() bool {
		c, err := net.Dial("tcp", other)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if resp, body := ask(); body != "here" || !resp.Close {
		t.Errorf("%q, close %v", body, resp.Close)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the connection stays: %v", err)
	}
	if status, _, _ := get(t, client(t, false), "http://"+address+"/"); status != 200 {
		t.Errorf("the other listener: %d", status)
	}
}

// TestABadConfigurationChangesNothing: whatever is wrong with it.
func TestABadConfigurationChangesNothing(t *testing.T) {
	address := free(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	up := server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") })
	good := one(address, up)
	good.Certificates = []l7.Certificate{newCA(t).certificate("old", "old.example")}
	p := start(t, good)
	for name, change := range map[string]func(*l7.Config){
		"an address that is taken": func(c *l7.Config) {
			c.Listeners = append(c.Listeners, l7.Listener{Name: "z", Address: taken.Addr().String()})
		},
		"no certificate":   func(c *l7.Config) { c.Certificates = []l7.Certificate{{Name: "old", Chain: "x", Key: "y"}} },
		"no address":       func(c *l7.Config) { c.Clusters[0].Endpoints[0].Address = "nowhere" },
		"a wrong CA":       func(c *l7.Config) { c.Clusters[0].TLS = &l7.ClientTLS{CA: "nonsense"} },
		"a wrong balancer": func(c *l7.Config) { c.Clusters[0].Balancer.Kind = "Best" },
	} {
		bad := one(address, refused(t))
		bad.Clusters[0].Circuit.Requests = 1
		change(bad)
		if err := p.Apply(bad); err == nil {
			t.Errorf("%s: applied", name)
		}
		if p.Config() != good {
			t.Errorf("%s: another configuration is shown", name)
		}
		if status, body, _ := get(t, client(t, false), "http://"+address+"/"); status != 200 || body != "here" {
			t.Errorf("%s: %d %q", name, status, body)
		}
		if requests := limitOf(p, "c"); requests != 16384 {
			t.Errorf("%s: the limit of requests is now %d", name, requests)
		}
		if certs := p.State().Certificates; len(certs) != 1 || !strings.Contains(fmt.Sprint(certs), "old") {
			t.Errorf("%s: certificates are now %v", name, certs)
		}
	}
}

// limitOf is the limit of requests of a cluster.
func limitOf(p *Proxy, cluster string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _, requests, _ := p.clusters[cluster].limits.Levels()
	return requests.Limit
}
