package node

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// TestResolvConf: a namespace of others gets one, keeps its own, and loses
// only ours.
func TestResolvConf(t *testing.T) {
	c := Config{EtcNetns: t.TempDir()}
	s := &snapshot.Snapshot{Names: map[snapshot.VNI]snapshot.DNS{7: {VNI: 7, Search: []string{"shop.moire.internal", "moire.internal."}, TTL: time.Second}}}
	interfaces := []local.Interface{
		withResolver(local.Interface{VNI: 6, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}, s),
		withResolver(local.Interface{VNI: 7, Addresses: []netip.Addr{netip.MustParseAddr("fd00::2")}}, s),
		withResolver(local.Interface{VNI: 7, Addresses: []netip.Addr{netip.MustParseAddr("fd00::2"), netip.MustParseAddr("10.0.0.2")}}, s),
	}
	if len(interfaces[0].Nameservers) != 0 || interfaces[1].Nameservers[0] != snapshot.NameServer6 || interfaces[2].Nameservers[0] != snapshot.NameServer4 {
		t.Errorf("%+v", interfaces)
	}
	a := &attachment{Key: snapshot.AttachmentKey{Project: "shop", Workload: "web", Network: "front"}, Netns: "/run/netns/blue"}
	other := &attachment{Key: snapshot.AttachmentKey{Project: "shop", Workload: "other", Network: "front"}, Netns: "/var/run/netns/blue"}
	path := filepath.Join(c.EtcNetns, "blue", "resolv.conf")
	content := func() string { b, _ := os.ReadFile(path); return string(b) }
	const text = "# By Moiré for shop/web: it goes with its attachment.\nnameserver fd00:4d4f:4952:45::53\nsearch shop.moire.internal moire.internal\n"
	write := func(a *attachment, i ...local.Interface) {
		t.Helper()
		if err := c.writeResolv(a, i); err != nil {
			t.Fatal(err)
		}
	}
	write(a, interfaces[0])
	if content() != "" {
		t.Error("made although no Network has names")
	}
	write(a, interfaces...)
	if content() != text {
		t.Errorf("got %q", content())
	}
	write(other, interfaces[2])
	if content() != text {
		t.Error("another Workload took it over")
	}
	write(a, interfaces[2])
	if content() == text {
		t.Error("it is not renewed")
	}
	if err := c.removeResolv(other); err != nil || content() == "" {
		t.Error("another Workload removed it", err)
	}
	if err := c.removeResolv(a); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(c.EtcNetns); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	write(a, interfaces...)
	if err := c.removeResolv(a); err != nil || content() != "nameserver 192.0.2.1\n" {
		t.Errorf("a file of somebody else became %q, %v", content(), err)
	}
	for _, a := range []*attachment{{Netns: "/proc/1/ns/net"}, {Netns: "/run/netns/blue", PID: 1}, {Netns: "/run/netns/../x"}} {
		if got := c.resolvConf(a.Netns, a.PID); got != "" {
			t.Errorf("%+v has %s", a, got)
		}
	}
}

// TestResolvConfFollows: a namespace whose Network gets other search domains is
// told, also by an agent that was not there when they changed.
func TestResolvConfFollows(t *testing.T) {
	b := newBench(t)
	b.attachedWeb(web())
	etc := t.TempDir()
	searching := func(domains ...string) *snapshot.Snapshot {
		b.cfg.EtcNetns, b.attached[webKey].Netns = etc, "/run/netns/blue"
		return world(b.control, func(s *snapshot.Snapshot) {
			s.Names = map[snapshot.VNI]snapshot.DNS{100: {VNI: 100, Search: domains}}
		})
	}
	path := filepath.Join(etc, "blue", "resolv.conf")
	for _, c := range []struct {
		domain  string
		restart bool
	}{{"one.example", false}, {"two.example", false}, {"three.example", true}} {
		if c.restart {
			b.restart()
		}
		b.gives(searching(c.domain))
		if got, err := os.ReadFile(path); err != nil || string(got) != resolvMark(webKey)+"nameserver 169.254.169.253\nsearch "+c.domain+"\n" {
			t.Errorf("%s: %q, %v", c.domain, got, err)
		}
	}
	if err := os.WriteFile(path, []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.gives(searching("four.example"))
	if got, _ := os.ReadFile(path); string(got) != "mine\n" {
		t.Errorf("somebody else's became %q", got)
	}
}
