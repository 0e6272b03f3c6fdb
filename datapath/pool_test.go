package datapath

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// float makes a FloatingIP of network 100 (all of it, or one TCP and UDP port)
// lead to targets of network 101 at the given port.
func (w *world) float(addr string, port, to uint16, targets ...string) {
	var backends []snapshot.Backend
	for _, t := range targets {
		node := w.endpoints[snapshot.Addr{VNI: 101, IP: netip.MustParseAddr(t)}].Node
		backends = append(backends, target(101, node, t, to))
	}
	v := floatingIP(100, addr, port, backends...)
	v.Name = "front"
	w.services[v.ServiceKey] = v
	if port != 0 {
		v.Protocol = policy.UDP
		w.services[v.ServiceKey] = v
	}
}

// pool is a world with callers in network 100, one on each node, and targets in
// network 101, whose addresses are the callers' too: blue on b, green on a.
func pool(t *testing.T) *world {
	w := twoNodes(t, "192.168.77.")
	w.network(100, "acme", "10.1.0.0/24", "fd10:1::/64")
	w.network(101, "bolt", "10.1.0.0/24", "fd10:1::/64")
	w.workload("a", "acme", "web", 100, 11, "10.1.0.2", "fd10:1::2")
	w.workload("b", "acme", "far", 100, 12, "10.1.0.3", "fd10:1::3")
	w.workload("b", "bolt", "blue", 101, 21, "10.1.0.4", "fd10:1::4")
	w.workload("a", "bolt", "green", 101, 22, "10.1.0.5", "fd10:1::5")
	w.workload("b", "bolt", "peer", 101, 23, "10.1.0.2", "fd10:1::2") // has web's address
	for _, n := range []string{"blue", "green"} {
		whoami(t, "moire-dp-bolt-"+n, n, 8080)
	}
	t.Cleanup(w.dump)
	return w
}

// TestFloatingIP: from both nodes to targets here and there, 1:1 and by port,
// both families, all protocols; the target sees the caller as it is; errors come
// back; another port of a mapped address does not exist.
func TestFloatingIP(t *testing.T) {
	w := pool(t)
	w.float("10.1.0.200", 0, 0, "10.1.0.4")
	w.float("fd10:1::200", 0, 0, "fd10:1::4")
	w.float("10.1.0.201", 80, 8080, "10.1.0.4", "10.1.0.5")
	w.float("fd10:1::201", 80, 8080, "fd10:1::4", "fd10:1::5")
	w.apply()
	for _, n := range w.nodes {
		n.record()
	}
	for _, ns := range []string{"moire-dp-acme-web", "moire-dp-acme-far"} {
		for _, ip := range []string{"10.1.0.200", "fd10:1::200"} {
			sh(t, "ip netns exec %s ping -c 2 -i 0.2 -W 1 %s", ns, ip)
			sh(t, "ip netns exec %s ping -c 1 -W 1 -s 5000 %s", ns, ip)
			if !refused(t, ns, ip) {
				t.Errorf("%s to %s: no word of the closed port", ns, ip)
			}
			from := "10.1.0.2"
			if strings.HasSuffix(ns, "far") {
				from = "10.1.0.3"
			}
			at := "10.1.0.4"
			if strings.Contains(ip, ":") {
				from, at = strings.Replace(from, "10.1.0.", "fd10:1::", 1), "fd10:1::4"
			}
			transfer(t, ns, "moire-dp-bolt-blue", at, ip, from)
		}
		for _, ip := range []string{"10.1.0.201", "fd10:1::201"} {
			for _, network := range []string{"tcp", "udp"} {
				who := map[string]int{}
				for range 16 {
					_, name, err := call(t, ns, network, net.JoinHostPort(ip, "80"))
					if err != nil {
						t.Fatal(ns, network, ip, err)
					}
					who[name]++
				}
				if who["blue"] == 0 || who["green"] == 0 {
					t.Errorf("%s %s %s: %v", ns, network, ip, who)
				}
			}
			if _, _, err := call(t, ns, "tcp", net.JoinHostPort(ip, "8080")); err == nil {
				t.Errorf("%s: the target's own port answers at %s", ns, ip)
			}
		}
	}
	r := w.nodes["b"].find("translated", func(r record.Record) bool {
		return r.Kind == record.Started && r.Protocol == "tcp" && r.Source.Workload == "web" && r.Destination.Workload == "blue" && r.Destination.Port == 80
	})
	if !strings.HasSuffix(r.TranslatedDestination, ":8080") || r.TranslatedSource != "" || r.Service != "acme/front" || r.IngressRule != "default/bolt/net/open" {
		t.Errorf("%+v", r)
	}
}

// TestFloatingClash: two callers that look the same to the target, one of its
// own Network, each get their own answers.
func TestFloatingClash(t *testing.T) {
	w := pool(t)
	w.float("10.1.0.200", 0, 0, "10.1.0.4")
	w.apply()
	from := func(ns, to string) net.Conn {
		var c net.Conn
		inNetns(t, ns, func() (err error) {
			d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{Port: 4444}}
			c, err = d.Dial("tcp", net.JoinHostPort(to, "8080"))
			return err
		})
		t.Cleanup(func() { c.Close() })
		return c
	}
	a := from("moire-dp-bolt-peer", "10.1.0.4")
	b := from("moire-dp-acme-web", "10.1.0.200")
	for range 5 {
		for _, c := range []net.Conn{a, b} {
			if who, err := again(c); who != "blue" {
				t.Errorf("%q %v", who, err)
			}
		}
	}
}

// TestSameKey: a session that is over, or one whose end is elsewhere, looks like
// what the target of a FloatingIP sees: its answers go home all the same, also
// after a change of the tables.
func TestSameKey(t *testing.T) {
	w := pool(t)
	w.float("10.1.0.200", 0, 0, "10.1.0.4")
	w.apply()
	var l net.Listener
	inNetns(t, "moire-dp-bolt-blue", func() (err error) {
		l, err = net.Listen("tcp", "10.1.0.4:9000")
		return err
	})
	defer l.Close()
	var c net.Conn
	inNetns(t, "moire-dp-acme-web", func() (err error) {
		c, err = (&net.Dialer{Timeout: 2 * time.Second}).Dial("tcp", "10.1.0.200:9000")
		return err
	})
	defer c.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	b := w.nodes["b"]
	var seen, told bpf.MoireSessionKey
	var alias bpf.MoireAlias
	for rows := b.objects.Aliases.Iterate(); rows.Next(&seen, &alias); {
		told = alias.Session
	}
	var row bpf.MoireSession
	if err := b.objects.Sessions.Lookup(&told, &row); err != nil {
		t.Fatal(err)
	}
	row.Guise = [2]bpf.MoireGuise{}
	row.Flags = 0
	for what, change := range map[string]func(*bpf.MoireSession){
		"a session that is over": func(s *bpf.MoireSession) { s.Expires = 1 },
		"a session of others":    func(s *bpf.MoireSession) { s.Hop[0].Ifindex, s.Hop[1].Ifindex = 999, 999 },
	} {
		other := row
		change(&other)
		if err := b.objects.Sessions.Put(&seen, &other); err != nil {
			t.Fatal(err)
		}
		for _, n := range w.nodes { // every session asks the tables again
			if err := n.locked(n.bump); err != nil {
				t.Fatal(err)
			}
		}
		// The target speaks first.
		got := make([]byte, 4)
		c.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := server.Write([]byte("blue")); err != nil {
			t.Errorf("beside %s: %v", what, err)
		}
		if _, err := io.ReadFull(c, got); err != nil {
			t.Errorf("beside %s: %q %v", what, got, err)
		}
	}
}

// swapLoad opens sessions one after the other from several callers, and keeps
// some, until it is told to stop.
type swapLoad struct {
	opened, failed atomic.Uint64
	first          atomic.Value // error
	stop           chan struct{}
	all            sync.WaitGroup
}

func (l *swapLoad) fail(err error) {
	l.failed.Add(1)
	l.first.CompareAndSwap(nil, err)
}

// dialer connects from a namespace, by the thread of the caller.
func dialer(t *testing.T, ns, to string) func() (net.Conn, error) {
	n, err := openNamespace("/run/netns/" + ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.close() })
	return func() (c net.Conn, err error) {
		n.do(func() error {
			c, err = (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", to)
			return nil
		})
		return c, err
	}
}

func (l *swapLoad) run(dial func() (net.Conn, error)) {
	l.all.Go(func() {
		for {
			select {
			case <-l.stop:
				return
			default:
			}
			c, err := dial()
			if err != nil {
				l.fail(err)
				continue
			}
			for range 3 {
				if _, err := again(c); err != nil {
					l.fail(err)
					break
				}
			}
			l.opened.Add(1)
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	})
}

// TestFloatingSwap: a FloatingIP goes from blue to green and back under load:
// new sessions follow at once, those that exist finish where they are, and nothing
// fails.
func TestFloatingSwap(t *testing.T) {
	w := pool(t)
	w.float("10.1.0.200", 0, 0, "10.1.0.4")
	w.apply()
	l := &swapLoad{stop: make(chan struct{})}
	for _, ns := range []string{"moire-dp-acme-web", "moire-dp-acme-far"} {
		l.run(dialer(t, ns, "10.1.0.200:8080"))
	}
	long, who, err := call(t, "moire-dp-acme-web", "tcp", "10.1.0.200:8080")
	if err != nil || who != "blue" {
		t.Fatal(who, err)
	}
	for i := 0; i < 20 || l.opened.Load() < 100 && i < 100; i++ {
		to, name := "10.1.0.5", "green"
		if i%2 == 1 {
			to, name = "10.1.0.4", "blue"
		}
		w.float("10.1.0.200", 0, 0, to)
		w.apply()
		for _, ns := range []string{"moire-dp-acme-web", "moire-dp-acme-far"} {
			if _, who, err := call(t, ns, "tcp", "10.1.0.200:8080"); who != name {
				t.Errorf("swap %d: a new session of %s went to %q, not %s: %v", i, ns, who, name, err)
			}
		}
		if who, err := again(long); who != "blue" {
			t.Fatalf("swap %d: the session that was there: %q %v", i, who, err)
		}
	}
	close(l.stop)
	l.all.Wait()
	t.Logf("%d sessions, %d failed", l.opened.Load(), l.failed.Load())
	if l.failed.Load() != 0 || l.opened.Load() < 40 {
		t.Error(l.first.Load())
	}
}

// TestFloatingLingers: a session finishes although, after the FloatingIP has
// moved, the node of the old target no longer knows the pool, and the caller's
// node not the old target; when it is over nothing of that is left.
func TestFloatingLingers(t *testing.T) {
	w := pool(t)
	w.float("10.1.0.200", 0, 0, "10.1.0.4")
	w.apply()
	long, who, err := call(t, "moire-dp-acme-web", "tcp", "10.1.0.200:8080")
	if err != nil || who != "blue" {
		t.Fatal(who, err)
	}
	w.float("10.1.0.200", 0, 0, "10.1.0.5")
	w.change = func(s *snapshot.Snapshot) {
		if s.Node == "a" {
			delete(s.Endpoints, snapshot.Addr{VNI: 101, IP: netip.MustParseAddr("10.1.0.4")})
			return
		}
		delete(s.Networks, 100)
		maps.DeleteFunc(s.Endpoints, func(a snapshot.Addr, _ snapshot.Endpoint) bool { return a.VNI == 100 })
		clear(s.Services)
	}
	for range 3 {
		w.apply()
		if who, err := again(long); who != "blue" {
			t.Fatalf("the session that was there: %q %v", who, err)
		}
	}
	if _, who, err := call(t, "moire-dp-acme-web", "tcp", "10.1.0.200:8080"); who != "green" {
		t.Errorf("a new session went to %q: %v", who, err)
	}
	long.(*net.TCPConn).SetLinger(0)
	long.Close()
	time.Sleep(50 * time.Millisecond)
	w.apply()
	if rows := w.nodes["b"].tables.networks.rows; rows[100] != 0 {
		t.Error("node b still knows the pool")
	}
	if _, ok := w.nodes["a"].tables.endpoints.rows[addrKey(101, netip.MustParseAddr("10.1.0.4"))]; ok {
		t.Error("node a still knows the old target")
	}
}

// TestFloatingErrors: an ICMP error about a translated packet with other ports
// has checksums that are right, and the quote as the caller sent it.
func TestFloatingErrors(t *testing.T) {
	w := pool(t)
	w.float("10.1.0.201", 80, 81, "10.1.0.4")
	w.float("fd10:1::201", 80, 81, "fd10:1::4")
	w.apply()
	for _, ip := range []string{"10.1.0.201", "fd10:1::201"} {
		c := dialPort(t, "moire-dp-acme-web", "udp", ip, "80")
		c.SetDeadline(time.Now().Add(2 * time.Second))
		c.Write(bytes.Repeat([]byte("x"), 300))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v", ip, err)
		}
	}
}
