package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// TestMeshUpgrades: an application that is spoken to in HTTP/1 changes to another
// protocol, whatever two proxies speak between them; it says what came to it.
func TestMeshUpgrades(t *testing.T) {
	s := newShop(t)
	s.edit = func(c *l7.Config) {
		for i := range c.Mesh.Workloads {
			if w := &c.Mesh.Workloads[i]; w.Name == "shop/api" {
				w.Ports = append(w.Ports, l7.WorkloadPort{Port: 8090, Protocol: l7.AutoHTTP}, l7.WorkloadPort{Port: 8091, Protocol: l7.HTTP1})
			}
		}
		addService(c, s.tenants[0], 90, 8090, l7.HTTP1)
		addService(c, s.tenants[0], 91, 8091, l7.HTTP1)
	}
	k := s.tenants[0]
	for _, port := range []uint16{8090, 8091} {
		k.boxes["api"].serve(port, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "echo" || r.ProtoMajor != 1 {
				fmt.Fprint(w, r.Proto)
				return
			}
			c, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			io.Copy(c, rw)
		})
	}
	inBoth(t, func(t *testing.T, one bool) {
		s.proxies(t, one)
		for _, port := range []uint16{90, 91} {
			at := netip.AddrPortFrom(vip[0], port)
			for range 3 { // the second is on a connection that is there
				if status, body, _ := fetch(t, k.boxes["web"].client(true, false), fmt.Sprintf("http://%s/", at)); status != 200 || body != "HTTP/1.1" {
					t.Errorf("%s: %d %q", at, status, body)
				}
				c, err := k.boxes["web"].dial(at, true)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
				r := bufio.NewReader(c)
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != 101 {
					t.Fatalf("%s: %v %v", at, resp, err)
				}
				io.WriteString(c, "hello\n")
				if line, err := r.ReadString('\n'); err != nil || line != "hello\n" {
					t.Errorf("%s: %q %v", at, line, err)
				}
			}
		}
	})
}
