package datapath

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/policy"
)

// tablesOf is the dump without what traffic and repair change.
func tablesOf(t *testing.T, n *testNode) string {
	t.Helper()
	var b strings.Builder
	if err := n.Dump(&b); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range strings.Split(b.String(), "\n") {
		if !regexp.MustCompile(`^(session|drops|events|datapath) `).MatchString(l) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// TestRepair: rows that somebody else changed, added or removed are put right.
func TestRepair(t *testing.T) {
	w := small(t)
	w.decide(11, policy.Egress, policy.Set{Rules: []policy.Rule{{ID: "r", Peers: []policy.Peer{{Anyone: true, CIDR: netip.MustParsePrefix("10.1.0.0/30")}}}}})
	w.apply()
	n := w.nodes["a"]
	want := tablesOf(t, n)
	m := &n.objects.MoireMaps
	web := addrKey(100, netip.MustParseAddr("10.1.0.2"))
	var e bpf.MoireEndpoint
	if err := m.Endpoints.Lookup(&web, &e); err != nil {
		t.Fatal(err)
	}
	e.Egress, e.Identity = 0, 99
	stray := addrKey(100, netip.MustParseAddr("10.1.0.99"))
	route := prefixKey(100, netip.MustParsePrefix("10.1.0.0/24"))
	other := prefixKey(7, netip.MustParsePrefix("10.0.0.0/8"))
	half := bpf.MoirePolicyKey{Bits: 96, Set: 7777}
	vtep := addrOf(netip.MustParseAddr("203.0.113.7"))
	var known uint32
	for id := range n.sets.keys {
		known = id
	}
	extra := bpf.MoirePolicyKey{Bits: 120, Set: known, Identity: 5, Proto: 6}
	if err := errors.Join(
		m.Endpoints.Update(&web, &e, ebpf.UpdateAny), m.Endpoints.Update(&stray, &e, ebpf.UpdateAny),
		m.Routes.Delete(&route), m.Routes.Update(&other, uint32(1), ebpf.UpdateAny),
		m.Policy.Update(&half, &bpf.MoireVerdict{Allow: 1}, ebpf.UpdateAny), m.Policy.Update(&extra, &bpf.MoireVerdict{Allow: 1}, ebpf.UpdateAny),
		m.Vteps.Update(&vtep, uint32(9), ebpf.UpdateAny), m.Networks.Update(uint32(77), uint32(1), ebpf.UpdateAny),
		m.Rules.Delete(uint32(closedRule)),
	); err != nil {
		t.Fatal(err)
	}
	if tablesOf(t, n) == want {
		t.Fatal("nothing was planted")
	}
	s := State{Snapshot: w.snapshot("a"), Locals: n.locals}
	again := func() {
		t.Helper()
		if err := errors.Join(n.Grow(s), n.Grow(s), n.Shrink(s)); err != nil {
			t.Fatal(err)
		}
	}
	again()
	if got := tablesOf(t, n); got != want {
		t.Errorf("not repaired:\n%s\nwant\n%s", got, want)
	}
	const planted = 9
	if n, last := n.Repairs(); n != planted || last == "" {
		t.Errorf("%d found of %d: %s", n, planted, last)
	}
	before := n.Writes()
	again()
	if n.Writes() != before {
		t.Errorf("%d writes although nothing changed", n.Writes()-before)
	}
	if err := n.links[ifacePin+n.locals[0].Host].link.Detach(); err != nil {
		t.Fatal(err)
	}
	again()
	if n, last := n.Repairs(); n != planted+1 || !strings.Contains(last, "programs") {
		t.Errorf("%d found: %s", n, last)
	}
}

// TestOtherLayout: the agent before this one had tables of another shape. They
// stay in use until ours are filled, and go then.
func TestOtherLayout(t *testing.T) {
	w := small(t)
	echoServer(t, "moire-dp-acme-far", "10.1.0.4")
	c := dial(t, "moire-dp-acme-web", "tcp", "10.1.0.4")
	if !echoed(c, time.Second) {
		t.Fatal("no traffic")
	}
	n := w.nodes["a"]
	old := filepath.Join(n.cfg.dir(), "layout-0ld")
	if err := errors.Join(n.Close(), os.Rename(filepath.Join(n.cfg.dir(), n.layout), old)); err != nil {
		t.Fatal(err)
	}
	n.open()
	if !echoed(c, time.Second) {
		t.Error("opening cut traffic off")
	}
	w.apply()
	if !echoed(c, time.Second) {
		t.Error("switching cut traffic off")
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old tables are still there: %v", err)
	}
}

// TestSweep: sessions that go on are told of, those that are over are removed
// and told of, and then their rules are forgotten.
func TestSweep(t *testing.T) {
	w := small(t)
	n := w.nodes["a"]
	echoServer(t, "moire-dp-acme-db", "10.1.0.3")
	w.decide(11, policy.Egress, policy.Set{Default: policy.DefaultRule{ID: "default/short-lived", Allow: true}})
	w.apply()
	if !echoed(dial(t, "moire-dp-acme-web", "udp", "10.1.0.3"), time.Second) {
		t.Fatal("no traffic")
	}
	w.decide(11, policy.Egress, policy.Set{Default: policy.DefaultRule{ID: "default/denies-shortly"}})
	w.apply()
	if echoed(dialFrom(t, "moire-dp-acme-web", "10.1.0.3", 99), 100*time.Millisecond) {
		t.Fatal("what is denied passes")
	}
	counted := func(rule string) bool {
		return slices.ContainsFunc(n.Drops(), func(c DropCount) bool { return c.Rule == rule && c.Packets > 0 })
	}
	w.decide(11, policy.Egress, open("acme"))
	w.apply()
	if !counted("default/denies-shortly") {
		t.Error("a denial was not counted")
	}
	var seen []record.Record
	sink := func(r record.Record) {
		if r.Protocol == "udp" {
			seen = append(seen, r)
		}
	}
	sweep := func(later time.Duration) {
		t.Helper()
		if err := n.sweep(bootTime()+uint64(later), true, sink); err != nil {
			t.Fatal(err)
		}
	}
	sweep(0)
	if len(seen) != 0 {
		t.Errorf("a new session is not an old one: %+v", seen)
	}
	sweep(updatePause)
	if len(seen) != 1 || seen[0].Kind != record.Update || seen[0].ReplyPackets != 1 || seen[0].Rule != "default/short-lived" {
		t.Errorf("update: %+v", seen)
	}
	sweep(time.Hour)
	if len(seen) != 2 || seen[1].Kind != record.Ended || seen[1].ID != seen[0].ID {
		t.Errorf("end: %+v", seen)
	}
	sweep(time.Hour)
	sweep(time.Hour)
	if len(seen) != 2 {
		t.Errorf("told again: %+v", seen)
	}
	if _, ok := n.rules.numbers["default/short-lived"]; ok {
		t.Error("a rule that nothing refers to was kept")
	}
	for _, c := range n.Drops() {
		if c.Reason == "policy" {
			t.Errorf("the counter of a rule that is forgotten was kept: %+v", c)
		}
	}
	if _, ok := n.rules.numbers["default/acme/net/open"]; !ok {
		t.Error("a rule that is in use was forgotten")
	}
}
