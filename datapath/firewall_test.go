package datapath

import (
	"net/netip"
	"strings"
	"testing"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// TestFirewall: the node's own firewall lets in what it says and what must
// pass, counts only in an audit, is replaced as one, and goes without a trace.
func TestFirewall(t *testing.T) {
	w := outsiders(t, "friend")
	for _, addr := range []string{"192.168.77.1", "fd77::1"} {
		whoServer(t, "moire-dp-a", addr, 22)
		whoServer(t, "moire-dp-a", addr, 80)
		whoServer(t, "moire-dp-a", addr, 7444)
		whoServer(t, "moire-dp-a", addr, 9444)
	}
	firewall := func(f *snapshot.Firewall) {
		t.Helper()
		w.change = func(s *snapshot.Snapshot) { s.Firewall = f }
		w.apply()
	}
	reaches := func(from string, port int, want bool) {
		t.Helper()
		for _, to := range []string{"192.168.77.1", "fd77::1"} {
			got := !closedTo(t, "moire-dp-"+from, "tcp", to, port)
			if got != want {
				t.Errorf("%s reaches %s port %d: %v, want %v", from, to, port, got, want)
			}
		}
	}
	rule := snapshot.FirewallRule{Name: "ssh", From: []netip.Prefix{netip.MustParsePrefix("192.168.77.4/32"), netip.MustParsePrefix("192.168.77.4/31"), netip.MustParsePrefix("fd77::4/128")},
		Ports: []snapshot.HostPort{{Protocol: policy.TCP, First: 20, Last: 22}}}
	firewall(&snapshot.Firewall{Audit: true, Allow: []snapshot.FirewallRule{rule}})
	reaches("out", 80, true)
	counted := uint64(0)
	inNetns(t, "moire-dp-a", func() (err error) { counted, err = firewalled("a"); return err })
	if counted == 0 {
		t.Error("an audit counted no packets")
	}
	var shown strings.Builder
	if err := w.nodes["a"].Dump(&shown); err != nil || !strings.Contains(shown.String(), "firewall packets=") {
		t.Errorf("the dump does not say what it counted: %v", err)
	}
	firewall(&snapshot.Firewall{Allow: []snapshot.FirewallRule{rule}})
	reaches("out", 22, false)
	reaches("out", 80, false)
	reaches("friend", 22, true)
	reaches("friend", 80, false)
	reaches("friend", 7444, true) // the control plane
	reaches("friend", 9444, false)
	a := w.nodes["a"]
	if err := a.Grow(State{Snapshot: w.snapshot("a"), Locals: a.locals, ControlPorts: []uint16{9444}}); err != nil {
		t.Fatal(err)
	}
	reaches("friend", 9444, true) // one at another port
	reaches("friend", 7444, true)
	reaches("friend", 80, false)
	w.apply()
	reaches("friend", 9444, false)
	if who, _ := asked(t, "moire-dp-a", "udp", "192.168.77.3", 7); !who.IsValid() {
		t.Error("replies do not pass")
	}
	if who, _ := asked(t, "moire-dp-a", "tcp", "192.168.77.1", 80); !who.IsValid() {
		t.Error("the loopback does not pass")
	}
	sh(t, "ip netns exec moire-dp-acme-web ping -c 1 -W 2 10.1.0.4 && ip netns exec moire-dp-acme-web ping -c 1 -W 2 fd10:1::4")
	if _, err := shell("ip netns exec moire-dp-out ping -c 1 -W 1 192.168.77.1"); err == nil {
		t.Error("a ping passes although no rule allows it")
	}
	rules := sh(t, "ip netns exec moire-dp-a nft list ruleset")
	for _, text := range []string{"table inet moire-a", `comment "rule ssh"`, "4789", "policy accept"} {
		if !strings.Contains(rules, text) {
			t.Errorf("no %q in\n%s", text, rules)
		}
	}
	// Somebody else took it away: it comes again; a restart keeps it.
	sh(t, "ip netns exec moire-dp-a nft delete table inet moire-a")
	w.apply()
	reaches("out", 22, false)
	n := w.nodes["a"]
	n.Close()
	n.open()
	reaches("out", 22, false)
	w.apply()
	reaches("friend", 22, true)
	firewall(&snapshot.Firewall{Allow: []snapshot.FirewallRule{rule, {Name: "ping", Ports: []snapshot.HostPort{{Protocol: policy.ICMP, Last: 65535}}}}})
	sh(t, "ip netns exec moire-dp-out ping -c 1 -W 2 192.168.77.1 && ip netns exec moire-dp-out ping -c 1 -W 2 fd77::1")
	n.Close() // an agent that never saw it takes it off
	n.open()
	firewall(nil)
	reaches("out", 80, true)
	if rules := sh(t, "ip netns exec moire-dp-a nft list ruleset"); strings.Contains(rules, "moire") {
		t.Errorf("left:\n%s", rules)
	}
	firewall(&snapshot.Firewall{})
	inNetns(t, "moire-dp-a", func() error { return cleanFirewall("a") })
	if rules := sh(t, "ip netns exec moire-dp-a nft list ruleset"); strings.Contains(rules, "moire") {
		t.Errorf("cleanup left:\n%s", rules)
	}
}
