package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// pair is a small world: web on node a, db on node a, far on node b.
func small(t *testing.T) *world {
	w := twoNodes(t, "192.168.77.")
	w.network(100, "acme", "10.1.0.0/24", "fd10:1::/64")
	w.workload("a", "acme", "web", 100, 11, "10.1.0.2", "fd10:1::2")
	w.workload("a", "acme", "db", 100, 12, "10.1.0.3", "fd10:1::3")
	w.workload("b", "acme", "far", 100, 13, "10.1.0.4", "fd10:1::4")
	w.apply()
	t.Cleanup(w.dump)
	return w
}

// dial connects from a namespace to port 7.
func dial(t *testing.T, ns, network, addr string) net.Conn {
	t.Helper()
	return dialPort(t, ns, network, addr, "7")
}

// echoed sends and waits for the answer.
func echoed(c net.Conn, wait time.Duration) bool {
	b := []byte(time.Now().String())
	if _, err := c.Write(b); err != nil {
		return false
	}
	c.SetReadDeadline(time.Now().Add(wait))
	_, err := c.Read(make([]byte, 65536))
	return err == nil
}

func (w *world) decide(id policy.Identity, d policy.Direction, set policy.Set) {
	w.policies[snapshot.PolicyKey{VNI: 100, Identity: id, Direction: d}] = set
}

var nothing = policy.Set{Isolated: "isolated/acme/x", Default: policy.DefaultRule{ID: "default/acme/net/open", Allow: true}}

// TestPolicyChange: sessions that exist are judged again, in both directions,
// and when the old verdict returns they go on.
func TestPolicyChange(t *testing.T) {
	w := small(t)
	w.nodes["a"].record()
	for name, addr := range map[string]string{"db": "10.1.0.3", "far": "10.1.0.4"} {
		echoServer(t, "moire-dp-acme-"+name, addr)
	}
	for _, c := range []struct {
		dst, network string
		id           policy.Identity
		direction    policy.Direction
	}{
		{"10.1.0.3", "tcp", 11, policy.Egress}, {"10.1.0.3", "tcp", 12, policy.Ingress}, {"10.1.0.3", "udp", 11, policy.Egress},
		{"10.1.0.4", "tcp", 11, policy.Egress}, {"10.1.0.4", "tcp", 13, policy.Ingress}, {"10.1.0.4", "udp", 13, policy.Ingress},
	} {
		name := fmt.Sprint(c.network, c.dst, c.id)
		conn := dial(t, "moire-dp-acme-web", c.network, c.dst)
		if !echoed(conn, time.Second) {
			t.Fatal(name, "does not work at first")
		}
		w.decide(c.id, c.direction, nothing)
		w.apply()
		if echoed(conn, 300*time.Millisecond) {
			t.Error(name, "goes on although it is denied now")
		}
		w.decide(c.id, c.direction, open("acme"))
		w.apply()
		if !echoed(conn, 10*time.Second) && c.network == "tcp" || c.network == "udp" && !echoed(conn, time.Second) {
			t.Error(name, "does not go on although it is allowed again")
		}
		// The other direction of other sessions is not meant.
		w.decide(12, policy.Egress, nothing)
		w.apply()
		if !echoed(conn, time.Second) {
			t.Error(name, "replies of an allowed session are cut off")
		}
		w.decide(12, policy.Egress, open("acme"))
		w.apply()
	}
	r := w.nodes["a"].find("denied", func(r record.Record) bool { return r.Kind == record.Denied })
	if r.Rule != "isolated/acme/x" || r.Tier != "project" || r.Source.Workload != "web" || r.Drop != "" {
		t.Errorf("%+v", r)
	}
}

// TestReplace: a policy is replaced again and again by one that allows the
// same, under traffic: nothing is lost; what both deny never passes.
func TestReplace(t *testing.T) {
	w := small(t)
	echoServer(t, "moire-dp-acme-db", "10.1.0.3")
	echoServer(t, "moire-dp-acme-far", "10.1.0.4")
	rule := func(i int) policy.Set {
		return policy.Set{Isolated: "isolated/acme/x", Rules: []policy.Rule{{
			ID: policy.RuleID(fmt.Sprintf("policy/acme/v%d/egress/0", i)), Tier: policy.Project, Action: policy.Allow,
			Peers: []policy.Peer{{Anyone: true, CIDR: netip.MustParsePrefix("10.1.0.0/29")}},
			Ports: []policy.PortRange{{Protocol: policy.UDP, First: 7, Last: uint16(7 + i%5)}},
		}}}
	}
	w.decide(11, policy.Egress, rule(0))
	w.apply()
	stop, done := make(chan bool), make(chan error, 2)
	for _, dst := range []string{"10.1.0.3", "10.1.0.4"} {
		c := dial(t, "moire-dp-acme-web", "udp", dst)
		go func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if !echoed(c, 2*time.Second) {
					done <- fmt.Errorf("packet %d to %s was lost", n, dst)
					return
				}
			}
		}()
	}
	denied := 0
	turns := often(1000, 250)
	for i := range turns {
		w.decide(11, policy.Egress, rule(i+1))
		n := w.nodes["a"]
		s := State{Snapshot: w.snapshot("a"), Locals: n.locals}
		if err := errors.Join(n.Grow(s), n.Shrink(s)); err != nil {
			t.Fatal(err)
		}
		if i%(turns/10) == 0 {
			if _, err := shell("ip netns exec moire-dp-acme-web ping -c 1 -W 1 10.1.0.3"); err != nil {
				denied++
			}
		}
	}
	close(stop)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if denied != 10 {
		t.Errorf("what all policies deny passed %d times of 10", 10-denied)
	}
	a := w.nodes["a"]
	if len(a.sets.keys) > 4 || len(a.tables.endpoints.rows) != 6 {
		t.Errorf("%d sets are left", len(a.sets.keys))
	}
}

// TestRestart: the agent goes and comes back, traffic does not notice.
func TestRestart(t *testing.T) {
	w := small(t)
	echoServer(t, "moire-dp-acme-db", "10.1.0.3")
	echoServer(t, "moire-dp-acme-far", "10.1.0.4")
	near, far := dial(t, "moire-dp-acme-web", "udp", "10.1.0.3"), dial(t, "moire-dp-acme-web", "udp", "10.1.0.4")
	stop, done := make(chan bool), make(chan string, 2)
	for _, c := range []net.Conn{near, far} {
		go func() {
			for {
				select {
				case <-stop:
					done <- ""
					return
				default:
				}
				if !echoed(c, 2*time.Second) {
					done <- "lost a packet to " + c.RemoteAddr().String()
					return
				}
			}
		}()
	}
	for range often(10, 3) {
		for _, n := range w.nodes {
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			n.open()
		}
		before := w.nodes["a"].Writes()
		w.apply()
		if got := w.nodes["a"].Writes() - before; got != 0 {
			t.Errorf("a restart rewrote %d rows", got)
		}
	}
	close(stop)
	for range 2 {
		if lost := <-done; lost != "" {
			t.Error(lost)
		}
	}
}

// TestLifecycle: plugging twice changes nothing, unplugging is noticed, cleanup
// leaves nothing.
func TestLifecycle(t *testing.T) {
	w := small(t)
	n := w.nodes["a"]
	web := n.locals[0]
	describe := func() string {
		return sh(t, "ip -n moire-dp-acme-web -d addr show net0 | grep -v -e valid_lft; ip -n moire-dp-acme-web route; ip -n moire-dp-acme-web -6 route; ip -n moire-dp-a -d link show %s", web.Host)
	}
	plug := func() {
		inNetns(t, n.ns, func() error {
			return Plug(PlugConfig{Node: "a", Key: web.Key, Host: web.Host, Netns: "/run/netns/moire-dp-acme-web", IfName: "net0", MAC: web.MAC, Addrs: web.Addrs,
				Prefixes: w.networks[100].Prefixes, MTU: n.MTU(0)})
		})
	}
	before := describe()
	plug()
	if after := describe(); after != before {
		t.Errorf("plugging again changed\n%s\nto\n%s", before, after)
	}
	sh(t, "ip -n moire-dp-acme-web addr flush dev net0 scope global && ip -n moire-dp-acme-web addr add 10.9.9.9/8 dev net0 && ip -n moire-dp-acme-web link set net0 mtu 9000")
	plug()
	sh(t, "ip netns exec moire-dp-acme-web ping -c 1 -W 1 10.1.0.4")
	if out := sh(t, "ip -n moire-dp-acme-web addr"); strings.Contains(out, "10.9.9.9") || !strings.Contains(out, "mtu 1450") {
		t.Errorf("not repaired:\n%s", out)
	}
	inNetns(t, n.ns, func() error {
		hosts, err := Plugged("a")
		if err != nil || len(hosts) != 2 {
			t.Errorf("plugged %v %v", hosts, err)
		}
		if err := Unplug("up0"); err == nil {
			t.Error("unplugged an interface that is not ours")
		}
		// The agent died before it could mark what it had made.
		half := HostName("a", snapshot.AttachmentKey{Project: "p", Workload: "half", Network: "n"})
		for _, remove := range []func() error{func() error { return Unplug(half) }, func() error { return Cleanup(t.TempDir(), "a-node-without-pins") }} {
			sh(t, "ip -n moire-dp-a link add %s type veth peer name halfpeer", half)
			if err := remove(); err != nil {
				t.Errorf("a pair without a mark: %v", err)
			}
			if _, err := shell("ip -n moire-dp-a link show %s", half); err == nil {
				t.Error("a pair without a mark stays")
				sh(t, "ip -n moire-dp-a link del %s", half)
			}
		}
		return errors.Join(Unplug(web.Host), Unplug(web.Host))
	})
	if err := n.Grow(State{Snapshot: w.snapshot("a"), Locals: n.locals}); err == nil || !strings.Contains(err.Error(), web.Host) {
		t.Errorf("a missing interface: %v", err)
	}
	n.locals = n.locals[1:]
	w.apply()
	if got := sh(t, "ls %s/bpf/a/links", n.runDir); strings.Contains(got, web.Host) {
		t.Errorf("left a pin: %s", got)
	}
	n.Close()
	inNetns(t, n.ns, func() error { return Cleanup(n.runDir, "a") })
	if _, err := os.Stat(n.runDir + "/bpf"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left %s/bpf: %v", n.runDir, err)
	}
	if out := sh(t, "ip -n moire-dp-a -o link"); strings.Contains(out, ": mo") {
		t.Errorf("left interfaces:\n%s", out)
	}
}
