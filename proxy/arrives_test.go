package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"moire.dev/moire/snapshot/l7"
)

// observed is a tenant whose application says how requests arrive.
type observed struct {
	*tenant
	arrivals
	// egress: it is the caller's Set that is guarded, not the application's.
	egress bool
}

// observe makes the application: raw bytes on 8080 and 8083, HTTP/2 on 8081, both on 8082.
func observe(t *testing.T) *observed {
	o := &observed{tenant: newTenant(t, "red", 100, "web", "api", "-legacy"), arrivals: arrivals{by: map[string]arrival{}}}
	api := o.boxes["api"]
	raw, either := api.listen(8080), api.listen(8083)
	for _, l := range append(raw[:], either[:]...) {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go o.raw(c)
			}
		}()
	}
	for _, port := range []uint16{8081, 8082} {
		for _, l := range api.listen(port) {
			s := &http.Server{Handler: o, Protocols: new(http.Protocols), DisableGeneralOptionsHandler: true}
			s.Protocols.SetHTTP1(true)
			s.Protocols.SetUnencryptedHTTP2(true)
			go s.Serve(l)
			t.Cleanup(func() { s.Close() })
		}
	}
	return o
}

// edit guards one of the sides.
func (o *observed) edit(c *l7.Config) {
	for i := range c.Mesh.Workloads {
		switch w := &c.Mesh.Workloads[i]; w.Name {
		case "shop/web":
			if o.egress {
				w.Egress = guarded()
			}
		case "shop/api":
			w.Ports = []l7.WorkloadPort{{Port: 8080, Protocol: l7.HTTP1}, {Port: 8081, Protocol: l7.HTTP2}, {Port: 8083, Protocol: l7.AutoHTTP}}
			if w.TellRule = true; !o.egress {
				w.Ingress = guarded()
			}
		}
	}
	addService(c, o.tenant, 81, 8081, l7.HTTP2)
	addService(c, o.tenant, 83, 8083, l7.HTTP1)
}

// way is how requests come to the application.
type way struct {
	from     string
	at       netip.AddrPort
	one, two bool // HTTP/1, HTTP/2
}

func (o *observed) ways() []way {
	api := o.boxes["api"]
	ways := []way{
		{"web", netip.AddrPortFrom(api.addrs[1], 8080), true, false},
		{"web", netip.AddrPortFrom(api.addrs[0], 8081), false, true},
		{"web", netip.AddrPortFrom(api.addrs[0], 8082), true, true},
		{"web", netip.AddrPortFrom(vip[0], 80), true, true}, // routed, to HTTP/1
		{"web", netip.AddrPortFrom(vip[1], 81), true, true}, // routed, to HTTP/2
		{"web", netip.AddrPortFrom(vip[0], 83), true, true}, // routed, to what may speak either, as HTTP/1
	}
	if !o.egress {
		ways = append(ways, way{"legacy", netip.AddrPortFrom(api.addrs[0], 8080), true, false},
			way{"legacy", netip.AddrPortFrom(api.addrs[0], 8081), false, true}, way{"legacy", netip.AddrPortFrom(api.addrs[1], 8082), true, true})
	}
	return ways
}

// try sends one request and judges what became of it.
func (o *observed) try(t *testing.T, w way, what, name, want string, send func(testing.TB, net.Conn, string, string) string) {
	c, err := o.boxes[w.from].dial(w.at, w.from == "web")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	became := send(t, c, what, name)
	a, came := o.take(name)
	if o.egress && want != comes && want != doubtful {
		want = "" // a caller is not told of its own rules
	}
	if became != want || came != (became == comes) {
		t.Errorf("from %s to %s: %q (arrived: %v), want %q:\n%s", w.from, w.at, became, came, want, what)
	}
	if around := a.forbidden(); came && around != "" {
		t.Errorf("from %s to %s: came around the rule about %s:\n%s", w.from, w.at, around, what)
	}
}

// TestDecidedIsWhatArrives: whatever way a request is written in, the decision is
// the one about what the application gets: by the proxies of the caller and of the
// application, by the latter alone, routed and not, over HTTP/1 and HTTP/2, to both.
func TestDecidedIsWhatArrives(t *testing.T) {
	o := observe(t)
	s := &shop{tenants: []*tenant{o.tenant}, modes: map[string]string{"web": "permissive", "api": "permissive", "legacy": "off"}, edit: o.edit}
	for _, o.egress = range []bool{false, true} {
		t.Run(fmt.Sprintf("egress=%v", o.egress), func(t *testing.T) {
			inBoth(t, func(t *testing.T, one bool) {
				s.proxies(t, one)
				for _, w := range o.ways() {
					for i, c := range corpus1 {
						if w.one {
							o.try(t, w, c.head, fmt.Sprint("one-", i), c.want, sendOne)
						}
					}
					for i, c := range corpus2 {
						if w.two {
							o.try(t, w, c.fields, fmt.Sprint("two-", i), c.want, sendTwo)
						}
					}
				}
			})
		})
	}
}

// addService adds a port of the Service in front of another one of the application.
func addService(c *l7.Config, k *tenant, port, target uint16, protocol l7.Protocol) {
	view, api := fmt.Sprint(k.vni, "/shop"), k.boxes["api"]
	cluster := l7.Cluster{Name: fmt.Sprint(view, "/api/", port), Protocol: protocol}
	route := l7.Route{Name: cluster.Name, Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: cluster.Name}}}}}
	for i, a := range api.addrs {
		cluster.Endpoints = append(cluster.Endpoints, l7.Endpoint{Address: netip.AddrPortFrom(a, target).String(), SPIFFE: api.spiffe()})
		l := l7.Listener{View: view, Address: netip.AddrPortFrom(vip[i], port).String()}
		l.Name = view + "/" + l.Address
		c.Listeners = append(c.Listeners, l)
		route.Listeners = append(route.Listeners, l.Name)
	}
	c.Clusters, c.Routes = append(c.Clusters, cluster), append(c.Routes, route)
}

// sendOne sends a request of HTTP/1 and says what became of it.
func sendOne(t testing.TB, c net.Conn, head, name string) string {
	t.Helper()
	lines := strings.Split(head, "\n")
	if !strings.Contains(strings.ToLower(head), "\nhost:") {
		lines = append(lines, "Host: shop.example")
	}
	if _, err := io.WriteString(c, strings.Join(append(lines, "x-case: "+name), "\r\n")+"\r\n\r\n"); err != nil {
		return err.Error()
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "GET"})
	if err != nil {
		return err.Error()
	}
	return becameOf(resp.StatusCode, resp.Header.Get("grpc-status"), resp.Header.Get("x-moire-rule"))
}

func becameOf(status int, grpc, rule string) string {
	switch {
	case status == 403, grpc == "7":
		return strings.TrimPrefix(rule, "policy/shop/api/ingress/")
	case status == 400:
		return doubtful
	case status == 200:
		return comes
	}
	return fmt.Sprint(status)
}

// sendTwo sends a request of HTTP/2 and says what became of it.
func sendTwo(t testing.TB, c net.Conn, fields, name string) string {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	said := map[string]bool{}
	var all []hpack.HeaderField
	for _, f := range strings.Split(fields, "\n") {
		if f == "" {
			continue
		}
		n, v, _ := strings.Cut(f[1:], ": ")
		n = f[:1] + n
		said[n] = true
		if v != "-" {
			all = append(all, hpack.HeaderField{Name: n, Value: v})
		}
	}
	for _, d := range [][2]string{{":path", "/cart"}, {":authority", "shop.example"}, {":scheme", "http"}, {":method", "GET"}} {
		if !said[d[0]] {
			all = slices.Insert(all, 0, hpack.HeaderField{Name: d[0], Value: d[1]})
		}
	}
	for _, f := range append(all, hpack.HeaderField{Name: "x-case", Value: name}) {
		if err := enc.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return err.Error()
	}
	framer := http2.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		return err.Error()
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		return err.Error()
	}
	for range 100 {
		f, err := framer.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			status, grpc, rule := 0, "", ""
			for _, h := range f.Fields {
				switch h.Name {
				case ":status":
					fmt.Sscan(h.Value, &status)
				case "grpc-status":
					grpc = h.Value
				case "x-moire-rule":
					rule = h.Value
				}
			}
			return becameOf(status, grpc, rule)
		case *http2.RSTStreamFrame:
			if f.ErrCode == http2.ErrCodeProtocol {
				return doubtful
			}
			return f.ErrCode.String()
		case *http2.GoAwayFrame:
			return "GOAWAY " + f.ErrCode.String()
		}
	}
	return "nothing"
}
