//go:build !race

package proxy

import (
	"bytes"
	"net/netip"
	"testing"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// TestMeshDoesNotAllocate: a request on a kept connection allocates nothing in the
// whole process when it crosses in memory, and between two proxies only the small
// object that crypto/tls makes for each record that it reads; with rules about
// requests and records on both sides.
func TestMeshDoesNotAllocate(t *testing.T) {
	s := newShop(t)
	s.edit = func(c *l7.Config) {
		locked(c)
		for i := range c.Mesh.Workloads {
			w := &c.Mesh.Workloads[i]
			w.TellRule = false
			if w.Name == "shop/api" {
				w.Ports = append(w.Ports, l7.WorkloadPort{Port: 9090, Protocol: l7.HTTP1})
			}
			for _, set := range []*policy.Set{&w.Egress, &w.Ingress} {
				for j := range set.Rules {
					if len(set.Rules[j].Requests) > 0 {
						set.Rules[j].Ports = nil
					}
				}
			}
		}
	}
	k := s.tenants[0]
	for _, l := range k.boxes["api"].listen(9090) {
		go serveCalm1(l)
	}
	inBoth(t, func(t *testing.T, one bool) {
		s.proxies(t, one)
		c, err := k.boxes["web"].dial(netip.AddrPortFrom(k.boxes["api"].addrs[0], 9090), true)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		request, b := []byte("GET /public/path?q=1 HTTP/1.1\r\nHost: shop.example\r\nX-Own: value\r\n\r\n"), make([]byte, 4096)
		ask := func() {
			c.Write(request)
			if n, err := c.Read(b); err != nil || !bytes.HasSuffix(b[:n], []byte("hello")) {
				t.Errorf("%q %v", b[:n], err)
			}
		}
		for range 200 {
			ask()
		}
		most := 0.
		if !one {
			most = 4 // the request, and head and body of the answer
		}
		if n := testing.AllocsPerRun(500, ask); n > most {
			t.Errorf("%v allocations for a request", n)
		}
	})
}
