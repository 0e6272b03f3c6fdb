package datapath

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// floatingIP stands for backends; port 0: for everything of them.
func floatingIP(vni snapshot.VNI, address string, port uint16, backends ...snapshot.Backend) snapshot.Service {
	s := snapshot.Service{Project: "acme", Name: "fip", Floating: true, Backends: backends}
	s.Addr, s.Port = snapshot.Addr{VNI: vni, IP: netip.MustParseAddr(address)}, port
	if port != 0 {
		s.Protocol = policy.TCP
	}
	return s
}

func target(vni snapshot.VNI, node, address string, port uint16) snapshot.Backend {
	return snapshot.Backend{Addr: snapshot.Addr{VNI: vni, IP: netip.MustParseAddr(address)}, Node: node, Port: port, Weight: 1}
}

func services(all ...snapshot.Service) map[snapshot.ServiceKey]snapshot.Service {
	out := map[snapshot.ServiceKey]snapshot.Service{}
	for _, s := range all {
		out[s.ServiceKey] = s
	}
	return out
}

// plaza is the world of outsiders with servers in every Workload, and a Network
// that has floating addresses, whose caller is on node a.
func plaza(t *testing.T) *world {
	w := outsiders(t, "friend")
	w.network(300, "front", "172.16.0.0/24", "fd30::/64")
	w.workload("a", "front", "caller", 300, 31, "172.16.0.2", "fd30::2")
	for _, tenant := range []string{"acme", "other"} {
		for name, last := range map[string]string{"web": "2", "far": "4"} {
			whoServer(t, "moire-dp-"+tenant+"-"+name, "10.1.0."+last, 7)
			whoServer(t, "moire-dp-"+tenant+"-"+name, "fd10:1::"+last, 7)
		}
	}
	return w
}

// TestFloating: an address of one Network stands for Workloads of two others
// that have the same addresses, one by one, by port and for several; it moves
// without a failure, and what was open goes on.
func TestFloating(t *testing.T) {
	w := plaza(t)
	set := func(blue string) {
		w.change = func(s *snapshot.Snapshot) {
			s.Services = services(
				floatingIP(300, "172.16.0.101", 0, target(100, "a", "10.1.0.2", 0)), floatingIP(300, "fd30::101", 0, target(100, "b", "fd10:1::4", 0)),
				floatingIP(300, "172.16.0.102", 0, target(200, "b", "10.1.0.4", 0)),
				floatingIP(300, "172.16.0.103", 80, target(100, "a", "10.1.0.2", 7), target(100, "b", "10.1.0.4", 7)),
			)
			green := map[string]string{"a": "10.1.0.2", "b": "10.1.0.4"}
			old := map[string]string{"a": "b", "b": "a"}[blue]
			swap := floatingIP(300, "172.16.0.104", 80, target(200, blue, green[blue], 7))
			swap.Leaving = []snapshot.Backend{target(200, old, green[old], 7)}
			s.Services[swap.ServiceKey] = swap
		}
		w.apply()
	}
	set("a")
	w.nodes["a"].record()
	w.nodes["b"].record()
	from := "moire-dp-front-caller"
	for _, to := range []string{"172.16.0.101", "172.16.0.102", "fd30::101"} {
		for _, network := range []string{"tcp", "udp"} {
			if who, _ := asked(t, from, network, to, 7); who.Addr().String() != "172.16.0.2" && who.Addr().String() != "fd30::2" {
				t.Errorf("%s %s: came as %s", network, to, who)
			}
		}
		sh(t, "ip netns exec %s ping -c 1 -W 2 %s", from, to)
	}
	for range 20 {
		if who, _ := asked(t, from, "tcp", "172.16.0.103", 80); !who.IsValid() {
			t.Error("a mapped port does not answer")
		}
	}
	if !closedTo(t, from, "tcp", "172.16.0.103", 7) {
		t.Error("a port that is not mapped answers")
	}
	for _, node := range []string{"a", "b"} {
		r := w.nodes[node].find("to the target", func(r record.Record) bool {
			return r.Kind == record.Started && strings.HasSuffix(r.TranslatedDestination, ":7") && r.Destination.Address.String() == "172.16.0.103"
		})
		if r.Source.Workload != "caller" || r.Destination.Port != 80 {
			t.Errorf("%+v", r)
		}
	}
	// From blue to green and back, under load: new sessions move, others stay.
	first, lasting := asked(t, from, "tcp", "172.16.0.104", 80)
	if !first.IsValid() {
		t.Fatal("no answer before the move")
	}
	var wg sync.WaitGroup
	stop, failed := make(chan bool), 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			who, c := asked(t, from, "tcp", "172.16.0.104", 80)
			if c != nil {
				c.Close()
			}
			if !who.IsValid() {
				failed++
			}
		}
	})
	for _, color := range []string{"b", "a", "b"} {
		time.Sleep(200 * time.Millisecond)
		set(color)
		if !whoAmI(lasting, 2*time.Second).IsValid() {
			t.Error("a session did not survive the move")
		}
	}
	close(stop)
	wg.Wait()
	if failed > 0 {
		t.Errorf("%d sessions failed during the moves", failed)
	}
}

// TestFloatingOutside: hosts outside reach Workloads on every node at external
// addresses, with their own address; what nobody opened stays closed; the
// address moves to another node; and who has one leaves under it.
func TestFloatingOutside(t *testing.T) {
	w := plaza(t)
	set := func(holder string) {
		w.change = func(s *snapshot.Snapshot) {
			exitsOf(snapshot.Exit{VNI: 100}, snapshot.Exit{VNI: 200})(s)
			s.Externals = map[netip.Addr]snapshot.External{}
			for _, a := range []string{"192.168.77.60", "fd77::60", "192.168.77.61"} {
				s.Externals[netip.MustParseAddr(a)] = snapshot.External{Address: netip.MustParseAddr(a), Node: holder}
			}
			one := target(200, "b", "10.1.0.4", 0)
			s.Services = services(
				floatingIP(snapshot.Outside, "192.168.77.60", 80, target(100, "a", "10.1.0.2", 7), target(100, "b", "10.1.0.4", 7)),
				floatingIP(snapshot.Outside, "fd77::60", 80, target(100, "a", "fd10:1::2", 7), target(100, "b", "fd10:1::4", 7)),
				floatingIP(snapshot.Outside, "192.168.77.61", 0, one),
			)
			s.Masquerades = map[snapshot.Addr]snapshot.Masquerade{one.Addr: {Addr: one.Addr, As: netip.MustParseAddr("192.168.77.61"), Node: holder}}
		}
		w.apply()
	}
	set("a")
	w.nodes["a"].record()
	w.nodes["b"].record()
	var conns []net.Conn
	check := func() {
		t.Helper()
		for range 8 {
			for _, to := range []string{"192.168.77.60", "fd77::60"} {
				want := map[string]string{"192.168.77.60": "192.168.77.3", "fd77::60": "fd77::3"}[to]
				who, c := asked(t, "moire-dp-out", "tcp", to, 80)
				if who.Addr().String() != want {
					t.Errorf("%s: came as %s, not %s", to, who, want)
				}
				conns = append(conns, c)
			}
		}
		for _, network := range []string{"tcp", "udp"} {
			if who, _ := asked(t, "moire-dp-out", network, "192.168.77.61", 7); who.Addr().String() != "192.168.77.3" {
				t.Errorf("%s one to one: came as %s", network, who)
			}
			if who, _ := asked(t, "moire-dp-other-far", network, "192.168.77.3", 7); who.Addr().String() != "192.168.77.61" {
				t.Errorf("who has an address left as %s", who)
			}
			if who, _ := asked(t, "moire-dp-other-web", network, "192.168.77.3", 7); who.Addr().String() != "192.168.77.1" {
				t.Errorf("who has none left as %s", who)
			}
		}
		sh(t, "ip netns exec moire-dp-out ping -c 2 -i 0.2 -W 2 -s 3000 192.168.77.61 && ip netns exec moire-dp-out ping -c 1 -W 2 192.168.77.60")
	}
	check()
	if !closedTo(t, "moire-dp-out", "tcp", "192.168.77.60", 7) || !closedTo(t, "moire-dp-out", "udp", "192.168.77.60", 80) {
		t.Error("a port that is not mapped answers")
	}
	// From the nodes themselves, and from Workloads by way of the outside.
	for _, from := range []string{"moire-dp-a", "moire-dp-b", "moire-dp-acme-web", "moire-dp-acme-far"} {
		if who, _ := asked(t, from, "tcp", "192.168.77.60", 80); !who.IsValid() {
			t.Errorf("%s does not reach it", from)
		}
	}
	w.nodes["b"].find("from outside", func(r record.Record) bool {
		return r.Source.Address.String() == "192.168.77.3" && r.Source.Number == 0 && r.TranslatedDestination == "10.1.0.4:7" && r.IngressRule == "default/acme/net/open"
	})
	set("b")
	for _, c := range conns {
		if c == nil || !whoAmI(c, 3*time.Second).IsValid() {
			t.Fatal("a session did not survive the move of its address")
		}
	}
	check()
	only := policy.Set{Isolated: "isolated/acme/x", Rules: []policy.Rule{{ID: "policy/acme/in/ingress/0", Tier: policy.Project, Action: policy.Allow,
		Peers: []policy.Peer{{Anyone: true, CIDR: netip.MustParsePrefix("192.168.77.3/32")}}, Ports: []policy.PortRange{{Protocol: policy.TCP, First: 7, Last: 7}}}}}
	w.decide(11, policy.Ingress, only)
	w.decide(12, policy.Ingress, only)
	w.apply()
	if who, _ := asked(t, "moire-dp-out", "tcp", "192.168.77.60", 80); !who.IsValid() {
		t.Error("who is allowed does not get in")
	}
	if !closedTo(t, "moire-dp-friend", "tcp", "192.168.77.60", 80) {
		t.Error("who is not allowed gets in")
	}
}
