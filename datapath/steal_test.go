package datapath

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// TestAliasOfAnother: a flood of sessions may push aliases out, and somebody
// else may then leave under the same address and port to the same place. Whoever
// was first never gets the other one's answers, nor the other one's the first's.
func TestAliasOfAnother(t *testing.T) {
	w := outsiders(t)
	w.change = exitsOf(snapshot.Exit{VNI: 100}, snapshot.Exit{VNI: 200})
	w.apply()
	whoServer(t, "moire-dp-out", "192.168.77.3", 80)
	from := func(ns string) (c net.Conn) {
		inNetns(t, ns, func() (err error) {
			d := net.Dialer{LocalAddr: &net.UDPAddr{Port: 62000}}
			c, err = d.Dial("udp", "192.168.77.3:80")
			return err
		})
		t.Cleanup(func() { c.Close() })
		return c
	}
	first := from("moire-dp-acme-web")
	was := whoAmI(first, 2*time.Second)
	if was != netip.MustParseAddrPort("192.168.77.1:62000") {
		t.Fatalf("the first is %s", was)
	}
	n := w.nodes["a"]
	rows, err := readMap[bpf.MoireSessionKey, bpf.MoireAlias](n.objects.Aliases)
	if err != nil {
		t.Fatal(err)
	}
	for k := range rows {
		if err := n.objects.Aliases.Delete(&k); err != nil {
			t.Fatal(err)
		}
	}
	second := from("moire-dp-other-web")
	if got := whoAmI(second, 2*time.Second); got != was {
		t.Fatalf("the second is %s", got) // the test is about those that are
	}
	if got := whoAmI(first, 300*time.Millisecond); got.IsValid() {
		t.Errorf("the first is answered as %s, which is the second", got)
	}
	if got := whoAmI(second, 2*time.Second); got != was {
		t.Errorf("the second lost its way: %s", got)
	}
	if got := whoAmI(first, 2*time.Second); !got.IsValid() || got == was {
		t.Errorf("the first does not begin anew: %s", got)
	}
	second.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := second.Read(make([]byte, 100)); err == nil {
		t.Errorf("the second got %d bytes that are not its own", n)
	}
}
