package lab

import (
	"net/netip"
	"os"
	"testing"
	"time"
)

// needRoot fails where CI promised root, and skips elsewhere.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test makes network namespaces and needs root")
}

// TestProbeTellsTruth sends every kind of probe over a plain veth pair, where
// it must come through, and to an address that is not there.
func TestProbeTellsTruth(t *testing.T) {
	needRoot(t)
	a, b := testNode(t, "probe-a", "198.18.60.1"), testNode(t, "probe-b", "198.18.60.2")
	if err := join(a, b); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{a, b} {
		six := netip.MustParsePrefix("fd60::" + n.Address.String()[len("198.18.60."):] + "/64")
		if err := InNetns(n.Netns, func() error { return configure("up0", six) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, proto := range []uint8{protoICMP, protoTCP, protoUDP, protoSCTP} {
		for _, ends := range [][2]string{{"198.18.60.1", "198.18.60.2"}, {"fd60::1", "fd60::2"}} {
			p := Probe{From: a.Netns, To: b.Netns, Source: netip.MustParseAddr(ends[0]), Dest: netip.MustParseAddr(ends[1]), Protocol: proto, Port: 5000, Wait: 2 * time.Second}
			came, err := p.Run()
			if err != nil || !came {
				t.Errorf("protocol %d to %s: came %v, error %v; want it to come through", proto, ends[1], came, err)
			}
		}
	}
	lost := Probe{From: a.Netns, To: b.Netns, Source: netip.MustParseAddr("198.18.60.1"), Dest: netip.MustParseAddr("198.18.60.9"), Protocol: protoICMP, Wait: 200 * time.Millisecond}
	if came, _ := lost.Run(); came {
		t.Error("a probe to nobody came through")
	}
}

func testNode(t *testing.T, name, addr string) *Node {
	t.Helper()
	name = "moire-lab-" + name
	path, err := makeNetns(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeNetns(name); err != nil {
			t.Error(err)
		}
	})
	return &Node{Name: name, Netns: path, Address: netip.MustParseAddr(addr)}
}
