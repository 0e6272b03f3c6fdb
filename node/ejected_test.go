package node

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// TestEjections: a backend that a proxy puts aside gets no new session of any
// port, protocol or family of its Service, in its Network alone; it comes back after it
// was well for a while, and stays when too few would be left.
func TestEjections(t *testing.T) {
	s := &snapshot.Snapshot{Services: map[snapshot.ServiceKey]snapshot.Service{}, Endpoints: map[snapshot.Addr]snapshot.Endpoint{}}
	for _, vni := range []snapshot.VNI{100, 200} {
		for _, k := range []snapshot.ServiceKey{{Protocol: policy.TCP, Port: 80}, {Protocol: policy.UDP, Port: 53}} {
			k.Addr = snapshot.Addr{VNI: vni, IP: netip.MustParseAddr("10.9.0.1")}
			v := snapshot.Service{ServiceKey: k, Project: "shop", Name: "api"}
			for i := range byte(3) {
				v.Backends = append(v.Backends, snapshot.Backend{Addr: snapshot.Addr{VNI: vni, IP: netip.AddrFrom4([4]byte{10, 0, 0, i + 1})}, Weight: 1})
			}
			s.Services[k] = v
		}
	}
	// The Service has an IPv6 address, too, here with a protocol of its own.
	six := snapshot.Service{ServiceKey: snapshot.ServiceKey{Addr: snapshot.Addr{VNI: 100, IP: netip.MustParseAddr("fd09::1")}, Protocol: policy.SCTP, Port: 80}, Project: "shop", Name: "api"}
	for i, b := range s.Services[snapshot.ServiceKey{Addr: snapshot.Addr{VNI: 100, IP: netip.MustParseAddr("10.9.0.1")}, Protocol: policy.TCP, Port: 80}].Backends {
		second := snapshot.Addr{VNI: 100, IP: netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i + 1)})}
		six.Backends = append(six.Backends, snapshot.Backend{Addr: second, Weight: 1})
		for _, a := range []snapshot.Addr{b.Addr, second} {
			s.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: "shop", Workload: fmt.Sprint("api-", i)}
		}
	}
	s.Services[six.ServiceKey] = six
	clock := time.Unix(1_800_000_000, 0)
	var now []door.Ejection
	e := newEjections(func() []door.Ejection { return now })
	e.now = func() time.Time { return clock }
	backends := func(vni snapshot.VNI, proto uint8) (out, leaving []string) {
		for k, v := range e.without(s).Services {
			if k.Addr.VNI == vni && k.Protocol == proto {
				for _, b := range v.Backends {
					out = append(out, b.Addr.IP.String())
				}
				for _, b := range v.Leaving {
					leaving = append(leaving, b.Addr.IP.String())
				}
			}
		}
		return out, leaving
	}
	if e.without(s) != s {
		t.Error("without ejections it is another snapshot")
	}
	first := door.Ejection{Cluster: "100/shop/api/80", Address: "10.0.0.1:8080", Reason: "consecutive 5xx"}
	now = []door.Ejection{first, {Cluster: "100/shop/api/81", Address: "10.0.0.2:80"}, {Cluster: "nonsense", Address: "x"}}
	if !e.due() {
		t.Error("nobody is told that there is something to do")
	}
	for _, proto := range []uint8{policy.TCP, policy.UDP} {
		if in, out := backends(100, proto); !slices.Equal(in, []string{"10.0.0.2", "10.0.0.3"}) || !slices.Equal(out, []string{"10.0.0.1"}) {
			t.Errorf("protocol %d: %v, leaving %v", proto, in, out)
		}
		if in, out := backends(200, proto); len(in) != 3 || len(out) != 0 {
			t.Errorf("another Network with the same addresses: %v, leaving %v", in, out)
		}
	}
	if in, out := backends(100, policy.SCTP); !slices.Equal(in, []string{"fd00::2", "fd00::3"}) || !slices.Equal(out, []string{"fd00::1"}) {
		t.Errorf("the other family: %v, leaving %v", in, out)
	}
	if first := e.without(s); e.without(s) != first || e.due() {
		t.Error("the same again is another snapshot")
	}
	now = nil
	clock = clock.Add(backAfter - 1)
	if in, _ := backends(100, policy.TCP); len(in) != 2 || e.due() {
		t.Errorf("it is back at once: %v", in)
	}
	clock = clock.Add(1)
	if !e.due() {
		t.Error("nobody is told that it is well again")
	}
	if in, _ := backends(100, policy.TCP); len(in) != 3 || e.without(s) != s {
		t.Errorf("it is not back: %v", in)
	}
	now = []door.Ejection{first, {Cluster: "100/shop/api/80", Address: "10.0.0.2:8080"}}
	if in, _ := backends(100, policy.UDP); len(in) != 3 {
		t.Errorf("too few are left: %v", in)
	}
}
