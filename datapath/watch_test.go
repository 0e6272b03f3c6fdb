package datapath

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// sights waits for what a capture sees at a place.
func (n *testNode) sights(id, where string, ok func(snapshot.Captured) bool) (found snapshot.Captured) {
	n.t.Helper()
	for range 100 {
		n.mu.Lock()
		i := slices.IndexFunc(n.captured, func(c snapshot.Captured) bool { return c.Capture == id && c.Where == where && ok(c) })
		if i >= 0 {
			found = n.captured[i]
		}
		n.mu.Unlock()
		if i >= 0 {
			return found
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.t.Errorf("node %s: capture %s saw nothing of that kind at %s; it saw %d things:", n.name, id, where, len(n.captured))
	for _, c := range n.captured {
		c.Data = nil
		n.t.Logf("%+v", c)
	}
	return found
}

func anything(snapshot.Captured) bool { return true }

func (n *testNode) sightings(id string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, c := range n.captured {
		if c.Capture == id {
			count++
		}
	}
	return count
}

// TestCapture: both ends see the tenant's own frames, with verdict and rule;
// filters, bounds and Networks hold.
func TestCapture(t *testing.T) {
	w := small(t)
	w.network(200, "other", "10.1.0.0/24")
	w.workload("a", "other", "web", 200, 21, "10.1.0.2")
	w.workload("a", "other", "db", 200, 22, "10.1.0.3")
	soon := time.Now().Add(time.Minute)
	w.captures = map[string]snapshot.Capture{
		"all":  {ID: "all", VNIs: []snapshot.VNI{100}, Workload: "acme/web", Until: soon, Packets: 100, Length: 60},
		"few":  {ID: "few", VNIs: []snapshot.VNI{100}, Until: soon, Packets: 2, Length: 2000},
		"deny": {ID: "deny", VNIs: []snapshot.VNI{100}, Verdict: "deny", B: netip.MustParseAddr("10.1.0.3"), Until: soon, Packets: 10, Length: 128},
		"rule": {ID: "rule", VNIs: []snapshot.VNI{100}, Rule: "isolated/acme/x", Until: soon, Packets: 10, Length: 128},
		"lie":  {ID: "lie", VNIs: []snapshot.VNI{100}, Rule: "spoofed-ip", Until: soon, Packets: 10, Length: 128},
		"port": {ID: "port", VNIs: []snapshot.VNI{100}, Protocol: policy.TCP, Port: 7, A: netip.MustParseAddr("10.1.0.4"), Until: soon, Packets: 10, Length: 128},
		"v6":   {ID: "v6", VNIs: []snapshot.VNI{100}, Protocol: policy.ICMP, B: netip.MustParseAddr("fd10:1::4"), Until: soon, Packets: 10, Length: 128},
		"them": {ID: "them", VNIs: []snapshot.VNI{200}, Until: soon, Packets: 100, Length: 128},
		"past": {ID: "past", VNIs: []snapshot.VNI{100}, Until: time.Now().Add(-time.Second), Packets: 100, Length: 128},
	}
	w.decide(12, policy.Ingress, nothing)
	w.apply()
	a, b := w.nodes["a"], w.nodes["b"]
	a.record()
	b.record()
	echoServer(t, "moire-dp-acme-far", "10.1.0.4")
	if !echoed(dial(t, "moire-dp-acme-web", "tcp", "10.1.0.4"), time.Second) {
		t.Fatal("no echo")
	}
	shell("ip netns exec moire-dp-acme-web ping -c 1 -W 1 10.1.0.3; ip netns exec moire-dp-acme-web ping -c 1 -W 1 fd10:1::4")
	shell("ip netns exec moire-dp-acme-web sh -c 'ip addr add 10.1.0.99/32 dev net0; ping -c 1 -W 1 -I 10.1.0.99 10.1.0.4'")
	s := a.sights("all", "from-workload", func(c snapshot.Captured) bool { return c.Length > 60 })
	if len(s.Data) != 60 || s.Interface != "acme/web/net" || s.VNI != 100 || s.Verdict != "" || !bytes.Equal(s.Data[12:14], []byte{8, 0}) {
		t.Errorf("%+v", s)
	}
	if s = a.sights("all", "to-node", anything); s.Rule != "default/acme/net/open" || s.Verdict != "allow" {
		t.Errorf("%+v", s)
	}
	b.sights("all", "from-node", anything)
	if s = b.sights("all", "to-workload", anything); s.Interface != "acme/far/net" {
		t.Errorf("%+v", s)
	}
	a.sights("port", "to-node", anything)
	a.sights("v6", "to-node", anything)
	for _, id := range []string{"deny", "rule"} {
		if s = a.sights(id, "drop", anything); s.Rule != "isolated/acme/x" || s.Verdict != "deny" || s.Reason != "" || s.Interface != "acme/web/net" {
			t.Errorf("%+v", s)
		}
	}
	if s = a.sights("lie", "drop", anything); s.Reason != "spoofed-ip" {
		t.Errorf("%+v", s)
	}
	if n := a.sightings("few"); n != 2 {
		t.Errorf("%d packets instead of 2", n)
	}
	if n := a.sightings("rule"); n != 1 {
		t.Errorf("the rule decided about %d packets, not one", n)
	}
	for _, n := range []*testNode{a, b} {
		n.mu.Lock()
		for _, c := range n.captured { // the other tenant's interfaces say something at any time
			if (c.Capture == "them") != (c.VNI == 200) || c.Capture == "past" {
				t.Errorf("a capture saw what it may not see: %+v", c)
			}
		}
		n.mu.Unlock()
	}
	// Another Network with the same addresses sees its own, and acme not that.
	sh(t, "ip netns exec moire-dp-other-web ping -c 1 -W 1 10.1.0.3")
	a.sights("them", "to-workload", func(c snapshot.Captured) bool { return c.VNI == 200 && c.Verdict == "allow" })
	if a.sightings("rule") != 1 {
		t.Error("a capture saw another tenant")
	}
	w.captures = nil
	w.apply()
	before := a.sightings("all")
	shell("ip netns exec moire-dp-acme-web ping -c 1 -W 1 10.1.0.4")
	time.Sleep(100 * time.Millisecond)
	if a.sightings("all") != before || a.tables.control.rows[0].Watch != 0 {
		t.Error("a capture that is gone goes on")
	}
}

// TestTrace: the node of the source sends the probe once, and every hop on the
// way is told, over families and over an agent that restarts.
func TestTrace(t *testing.T) {
	w := small(t)
	a, b := w.nodes["a"], w.nodes["b"]
	a.record()
	b.record()
	w.decide(12, policy.Ingress, nothing)
	w.tap("a", "acme", "vm", 100, snapshot.MAC{2, 0, 0, 0, 0, 0x77}, "10.1.0.9")
	probe := func(id, src, dst string, proto uint8) snapshot.Capture {
		c := snapshot.Capture{
			ID: id, Trace: true, VNIs: []snapshot.VNI{100}, Until: time.Now().Add(time.Minute), Packets: 20, Protocol: proto,
			A: netip.MustParseAddr(src), B: netip.MustParseAddr(dst),
		}
		c.Probe = snapshot.Probe{Source: snapshot.Addr{VNI: 100, IP: c.A}, Destination: snapshot.Addr{VNI: 100, IP: c.B}, Protocol: proto, SourcePort: 45000, Port: 7}
		return c
	}
	w.captures = map[string]snapshot.Capture{
		"far":  probe("far", "10.1.0.2", "10.1.0.4", policy.TCP),
		"far6": probe("far6", "fd10:1::2", "fd10:1::4", policy.UDP),
		"ping": probe("ping", "fd10:1::2", "fd10:1::4", policy.ICMP),
		"tap":  probe("tap", "10.1.0.9", "10.1.0.4", policy.UDP),
		"no":   probe("no", "10.1.0.2", "10.1.0.3", policy.TCP),
		"none": probe("none", "10.1.0.2", "10.1.0.77", policy.UDP),
	}
	w.apply()
	w.apply()
	for _, id := range []string{"far", "far6", "ping"} {
		a.sights(id, "from-workload", anything)
		a.sights(id, "to-node", anything)
		b.sights(id, "from-node", anything)
		b.sights(id, "to-workload", anything)
		a.sights(id, "to-workload", anything) // the answer
	}
	if s := a.sights("far", "from-workload", anything); s.Text != "tcp 10.1.0.2:45000 -> 10.1.0.4:7" || s.Data != nil {
		t.Errorf("%+v", s)
	}
	if s := a.sights("tap", "to-node", anything); s.Text != "udp 10.1.0.9:45000 -> 10.1.0.4:7" {
		t.Errorf("%+v", s)
	}
	b.sights("tap", "to-workload", anything)
	if s := a.sights("no", "drop", anything); s.Rule != "isolated/acme/x" {
		t.Errorf("%+v", s)
	}
	if s := a.sights("none", "drop", anything); s.Reason != "no-route" {
		t.Errorf("%+v", s)
	}
	if n := a.sightings("no"); n != 2 {
		t.Errorf("the probe was seen %d times, not once at each of two places", n)
	}
	for range 100 { // the last may be on its way
		if out := sh(t, "ip -n moire-dp-a -o link"); !strings.Contains(out, ": mop") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("what the probe was sent from stays")
}
