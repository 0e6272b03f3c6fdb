package datapath

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// service puts a Service into the world: addr:port to backends (address:port),
// those after "leaving" get no new sessions.
func (w *world) service(name string, vni snapshot.VNI, proto uint8, at string, backends ...string) snapshot.ServiceKey {
	ap := netip.MustParseAddrPort(at)
	key := snapshot.ServiceKey{Addr: snapshot.Addr{VNI: vni, IP: ap.Addr()}, Protocol: proto, Port: ap.Port()}
	v := snapshot.Service{ServiceKey: key, Project: w.networks[vni].Project, Name: name}
	into := &v.Backends
	for _, b := range backends {
		if b == "leaving" {
			into = &v.Leaving
			continue
		}
		to := netip.MustParseAddrPort(b)
		at := snapshot.Addr{VNI: vni, IP: to.Addr()}
		*into = append(*into, snapshot.Backend{Addr: at, Port: to.Port(), Weight: 1, Node: w.endpoints[at].Node})
	}
	w.services[key] = v
	return key
}

// affinity sets how long the Service keeps clients.
func (w *world) affinity(k snapshot.ServiceKey, d time.Duration) {
	v := w.services[k]
	v.Affinity = d
	w.services[k] = v
}

// call opens a session to a Service and says who answered.
func call(t *testing.T, ns, network, at string) (net.Conn, string, error) {
	t.Helper()
	var c net.Conn
	var err error
	inNetns(t, ns, func() error {
		c, err = (&net.Dialer{Timeout: 2 * time.Second}).Dial(network, at)
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	t.Cleanup(func() { c.Close() })
	who, err := again(c)
	return c, who, err
}

// again asks once more over an open session.
func again(c net.Conn) (string, error) {
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte{1}); err != nil {
		return "", err
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// shop is a world with a client and three backends, two here and one there,
// twice with the same addresses.
func shop(t *testing.T) *world {
	w := twoNodes(t, "192.168.77.")
	for i, project := range []string{"acme", "bolt"} {
		vni, id := snapshot.VNI(100+i), policy.Identity(10*(i+1))
		w.network(vni, project, "10.1.0.0/24", "fd10:1::/64")
		w.workload("a", project, "web", vni, id+1, "10.1.0.2", "fd10:1::2")
		w.workload("a", project, "b1", vni, id+2, "10.1.0.3", "fd10:1::3")
		w.workload("b", project, "b2", vni, id+3, "10.1.0.4", "fd10:1::4")
		for _, b := range []string{"b1", "b2"} {
			whoami(t, "moire-dp-"+project+"-"+b, project+"/"+b, 8080)
		}
		for _, proto := range []uint8{policy.TCP, policy.UDP} {
			w.service("api", vni, proto, "10.1.0.100:80", "10.1.0.3:8080", "10.1.0.4:8080")
			w.service("api", vni, proto, "[fd10:1::100]:80", "[fd10:1::3]:8080", "[fd10:1::4]:8080")
		}
	}
	w.apply()
	t.Cleanup(w.dump)
	return w
}

// TestService: sessions of both protocols and families are spread over the
// backends, of one's own tenant only; the address answers ARP, ND and ping;
// another port does not exist; records say which Service was asked.
func TestService(t *testing.T) {
	w := shop(t)
	w.nodes["a"].record()
	for _, project := range []string{"acme", "bolt"} {
		ns := "moire-dp-" + project + "-web"
		for _, at := range []string{"10.1.0.100:80", "[fd10:1::100]:80"} {
			for _, network := range []string{"tcp", "udp"} {
				count := map[string]int{}
				for range 40 {
					_, who, err := call(t, ns, network, at)
					if err != nil {
						t.Fatal(project, network, at, err)
					}
					count[who]++
				}
				if len(count) != 2 || count[project+"/b1"] < 5 || count[project+"/b2"] < 5 {
					t.Errorf("%s %s %s went to %v", project, network, at, count)
				}
			}
		}
		sh(t, "ip netns exec %s ping -c 1 -W 1 10.1.0.100 && ip netns exec %s ping -c 1 -W 1 fd10:1::100", ns, ns)
	}
	if _, _, err := call(t, "moire-dp-acme-web", "tcp", "10.1.0.100:81"); err == nil {
		t.Error("another port answers")
	}
	w.nodes["a"].find("no-service", func(r record.Record) bool { return r.Drop == "no-service" && r.Destination.Port == 81 })
	r := w.nodes["a"].find("started by way of a Service", func(r record.Record) bool {
		return r.Kind == record.Started && r.Destination.Workload == "b2" && r.Destination.Port == 8080 && r.Protocol == "tcp"
	})
	if r.Service == "" || !strings.HasSuffix(r.Service, "/api") || r.ServiceAddress != "10.1.0.100:80" && r.ServiceAddress != "[fd10:1::100]:80" {
		t.Errorf("%+v", r)
	}
}

// TestServicePolicy: egress is judged by the backend and its port, ingress as
// for every session; the Service address itself by nobody.
func TestServicePolicy(t *testing.T) {
	w := shop(t)
	allow := func(to policy.Identity, port uint16) policy.Set {
		return policy.Set{Isolated: "isolated/acme/x", Rules: []policy.Rule{{
			ID: "policy/acme/to/egress/0", Tier: policy.Project, Action: policy.Allow,
			Peers: []policy.Peer{{Identities: []policy.Identity{to}}}, Ports: []policy.PortRange{{Protocol: policy.TCP, First: port, Last: port}},
		}}}
	}
	works := 0
	for _, c := range []struct {
		to    policy.Identity
		port  uint16
		works map[string]bool
	}{
		{12, 8080, map[string]bool{"acme/b1": true}}, {13, 8080, map[string]bool{"acme/b2": true}}, {12, 80, map[string]bool{}},
	} {
		w.decide(11, policy.Egress, allow(c.to, c.port))
		w.apply()
		inNetns(t, "moire-dp-acme-web", func() error {
			for range 8 {
				conn, err := (&net.Dialer{Timeout: 100 * time.Millisecond}).Dial("tcp", "10.1.0.100:80")
				if err != nil {
					continue
				}
				if who, err := again(conn); err != nil || !c.works[who] {
					t.Errorf("%+v: %q %v", c, who, err)
				}
				works++
				conn.Close()
			}
			return nil
		})
	}
	if works == 0 {
		t.Error("nothing works")
	}
}

// TestAffinity: a client stays with its backend, until it has had no new session
// for as long as the Service says, or the backend leaves.
func TestAffinity(t *testing.T) {
	w := shop(t)
	key := w.service("api", 100, policy.TCP, "10.1.0.100:80", "10.1.0.3:8080", "10.1.0.4:8080")
	w.affinity(key, time.Minute)
	w.apply()
	_, first, err := call(t, "moire-dp-acme-web", "tcp", "10.1.0.100:80")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, who, err := call(t, "moire-dp-acme-web", "tcp", "10.1.0.100:80"); err != nil || who != first {
			t.Fatalf("%s after %s: %v", who, first, err)
		}
	}
	// What is remembered of a client decides, until it is too old.
	favourites := w.nodes["a"].objects.Favourites
	rows, err := readMap[bpf.MoireClient, bpf.MoireFavourite](favourites)
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d clients are remembered, want one: %v", len(rows), err)
	}
	other := map[string]string{"acme/b1": "acme/b2", "acme/b2": "acme/b1"}[first]
	for k, row := range rows {
		row.Index = 1 - row.Index
		for age, want := range map[time.Duration]string{30 * time.Second: other, 61 * time.Second: first} {
			row.Last = bootTime() - uint64(age)
			if err := favourites.Put(&k, &row); err != nil {
				t.Fatal(err)
			}
			if _, who, err := call(t, "moire-dp-acme-web", "tcp", "10.1.0.100:80"); err != nil || who != want {
				t.Errorf("%s after it was remembered: %q, want %s: %v", age, who, want, err)
			}
		}
		row.Index, row.Last = 1-row.Index, bootTime()
		if err := favourites.Put(&k, &row); err != nil {
			t.Fatal(err)
		}
	}
	stays, leaves := "10.1.0.3:8080", "10.1.0.4:8080"
	if first == "acme/b1" {
		stays, leaves = leaves, stays
	}
	w.service("api", 100, policy.TCP, "10.1.0.100:80", stays, "leaving", leaves)
	w.affinity(key, time.Minute)
	w.apply()
	if _, who, err := call(t, "moire-dp-acme-web", "tcp", "10.1.0.100:80"); err != nil || who == first {
		t.Errorf("%q although it leaves: %v", who, err)
	}
}

// TestDrain: a backend that leaves keeps its sessions and gets no new ones; one
// that is gone has its sessions ended: UDP goes on with another at once, TCP is
// told at once. Sessions to others notice nothing.
func TestDrain(t *testing.T) {
	w := shop(t)
	w.nodes["a"].record()
	conns := map[string]map[string]net.Conn{"tcp": {}, "udp": {}}
	for network := range conns {
		for range 60 {
			if c, who, err := call(t, "moire-dp-acme-web", network, "10.1.0.100:80"); err != nil {
				t.Fatal(err)
			} else if conns[network][who] == nil {
				conns[network][who] = c
			}
		}
	}
	set := func(backends ...string) {
		w.service("api", 100, policy.TCP, "10.1.0.100:80", backends...)
		w.service("api", 100, policy.UDP, "10.1.0.100:80", backends...)
		w.apply()
	}
	still := func(network, who, want string) {
		t.Helper()
		if got, err := again(conns[network][who]); err != nil || got != want {
			t.Errorf("%s of %s: answered by %q, %v", network, who, got, err)
		}
	}
	set("10.1.0.3:8080", "leaving", "10.1.0.4:8080")
	for network := range conns {
		for _, who := range []string{"acme/b1", "acme/b2"} {
			still(network, who, who)
		}
		for range 20 {
			if _, who, err := call(t, "moire-dp-acme-web", network, "10.1.0.100:80"); err != nil || who != "acme/b1" {
				t.Fatalf("%s: %s %v", network, who, err)
			}
		}
	}
	set("10.1.0.3:8080")
	still("udp", "acme/b2", "acme/b1")
	still("udp", "acme/b1", "acme/b1")
	still("tcp", "acme/b1", "acme/b1")
	began := time.Now()
	if who, err := again(conns["tcp"]["acme/b2"]); err == nil || time.Since(began) > time.Second {
		t.Errorf("tcp to a backend that is gone: %q, %v after %s", who, err, time.Since(began))
	}
	w.nodes["a"].find("ended with its backend", func(r record.Record) bool {
		return r.Kind == record.Ended && r.Destination.Workload == "b2" && r.ServiceAddress == "10.1.0.100:80"
	})
	// What says nothing any more ends all the same.
	c, who, err := call(t, "moire-dp-acme-web", "udp", "10.1.0.100:80")
	if err != nil {
		t.Fatal(who, err)
	}
	set("leaving", "10.1.0.3:8080")
	set("10.1.0.4:8080")
	port := uint16(c.LocalAddr().(*net.UDPAddr).Port)
	sweep := func(seen func(record.Record)) {
		if err := w.nodes["a"].sweep(bootTime(), false, seen); err != nil {
			t.Error(err)
		}
	}
	ended := 0
	sweep(func(r record.Record) {
		if r.Kind == record.Ended && r.Source.Port == port {
			ended++
		}
	})
	sweep(func(r record.Record) {
		if r.Source.Port == port {
			t.Errorf("it is there yet: %+v", r)
		}
	})
	if ended != 1 {
		t.Errorf("an idle session ended %d times with its backend", ended)
	}
	// Nobody is left: refused at once.
	set()
	for network := range conns {
		began = time.Now()
		if _, who, err := call(t, "moire-dp-acme-web", network, "10.1.0.100:80"); err == nil || !strings.Contains(err.Error(), "refused") || time.Since(began) > time.Second {
			t.Errorf("%s without backends: %q %v after %s", network, who, err, time.Since(began))
		}
	}
	w.service("api", 100, policy.TCP, "[fd10:1::100]:80")
	w.service("api", 100, policy.UDP, "[fd10:1::100]:80")
	w.apply()
	for network := range conns {
		if _, who, err := call(t, "moire-dp-acme-web", network, "[fd10:1::100]:80"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s over IPv6 without backends: %q %v", network, who, err)
		}
	}
	w.nodes["a"].find("no-backend", func(r record.Record) bool { return r.Drop == "no-backend" && r.Kind == record.Denied })
}

// TestHairpin: a backend that asks the Service and gets itself.
func TestHairpin(t *testing.T) {
	w := shop(t)
	for _, proto := range []uint8{policy.TCP, policy.UDP} {
		w.service("self", 100, proto, "10.1.0.101:80", "10.1.0.3:8080")
		w.service("self", 100, proto, "[fd10:1::101]:80", "[fd10:1::3]:8080")
	}
	w.apply()
	for _, network := range []string{"tcp", "udp"} {
		for _, at := range []string{"10.1.0.101:80", "[fd10:1::101]:80"} {
			for range 5 {
				if _, who, err := call(t, "moire-dp-acme-b1", network, at); err != nil || who != "acme/b1" {
					t.Errorf("%s %s: %q %v", network, at, who, err)
				}
			}
			if _, who, err := call(t, "moire-dp-acme-web", network, at); err != nil || who != "acme/b1" {
				t.Errorf("%s %s from another: %q %v", network, at, who, err)
			}
		}
	}
}
