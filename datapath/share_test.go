package datapath

import (
	"fmt"
	"net"
	"testing"
	"time"

	"moire.dev/moire/flow/record"
)

// TestShare: who opens sessions without end loses by it, and nobody else; what
// the kernel pushes out of the full table is counted as lost.
func TestShare(t *testing.T) {
	w := small(t)
	n := w.nodes["a"]
	echoServer(t, "moire-dp-acme-db", "10.1.0.3")
	quiet := dial(t, "moire-dp-acme-db", "udp", "10.1.0.2")
	quiet.Write([]byte("a session that must stay"))
	sweep := func(later time.Duration) {
		t.Helper()
		if err := n.sweep(bootTime()+uint64(later), false, func(record.Record) {}); err != nil {
			t.Fatal(err)
		}
	}
	full := func() (packets uint64) {
		for _, d := range n.Drops() {
			if d.Reason == "ct-full" {
				packets = d.Packets
			}
		}
		return packets
	}
	sweep(0)
	flood := func(first, sessions int) {
		t.Helper()
		inNetns(t, "moire-dp-acme-web", func() error {
			c, err := net.ListenPacket("udp4", "10.1.0.2:0")
			if err != nil {
				return err
			}
			defer c.Close()
			for i := range sessions {
				if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(10, 1, 0, 3), Port: first + i}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	share := int(n.objects.Sessions.MaxEntries()) / sharers
	flood(10_000, share+200)
	if got := full(); got < 150 || got > 250 {
		t.Errorf("%d packets were refused; want about 200 above a share of %d", got, share)
	}
	if echoed(dialFrom(t, "moire-dp-acme-web", "10.1.0.3", 5), 50*time.Millisecond) {
		t.Error("the share is not enforced for new sessions")
	}
	if lost := n.evicted.total.Load(); lost != 0 {
		t.Errorf("%d lost although the table is not full", lost)
	}
	sweep(time.Minute) // all but what lives long is over
	if !echoed(dialFrom(t, "moire-dp-acme-web", "10.1.0.3", 6), time.Second) {
		t.Error("after the flood its sender is still refused")
	}
	// Without the share, the kernel makes room in its own way.
	c := n.tables.control.rows[0]
	c.Share = 1 << 30
	if err := n.objects.Control.Put(uint32(0), &c); err != nil {
		t.Fatal(err)
	}
	most := int(n.objects.Sessions.MaxEntries())
	flood(10_000, 2*most)
	sweep(0)
	if lost := int(n.evicted.total.Load()); lost < most-most/8 || lost > 2*most || uint64(lost) > n.Lost() {
		t.Errorf("%d lost of %d sessions in a table of %d", lost, 2*most, most)
	}
}

// dialFrom is dial, from a port of its own.
func dialFrom(t *testing.T, ns, dst string, port int) (c net.Conn) {
	t.Helper()
	inNetns(t, ns, func() (err error) {
		d := net.Dialer{LocalAddr: &net.UDPAddr{Port: port}}
		c, err = d.Dial("udp", fmt.Sprint(dst, ":7"))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}
