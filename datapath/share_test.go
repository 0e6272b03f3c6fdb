package datapath

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"moire.dev/moire/datapath/bpf"
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
	rows := func(from uint32) (inTable, inCrowd int) {
		t.Helper()
		err := n.eachSession(func(m *ebpf.Map, _ bpf.MoireSessionKey, s bpf.MoireSession) {
			switch {
			case s.Hop[0].Ifindex != from:
			case m == n.objects.Crowd:
				inCrowd++
			default:
				inTable++
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return inTable, inCrowd
	}
	web, db := uint32(n.want.links[n.locals[0].Host]), uint32(n.want.links[n.locals[1].Host])
	if table, crowd := rows(web); table != share || crowd < 150 || crowd > 250 {
		t.Errorf("%d sessions in the table and %d in the crowd; want the share of %d and about 200", table, crowd, share)
	}
	if !echoed(dialFrom(t, "moire-dp-acme-web", "10.1.0.3", 5), time.Second) {
		t.Error("a session of the crowd gets no answer")
	}
	if lost := n.evicted.total.Load(); lost != 0 {
		t.Errorf("%d lost although the table is not full", lost)
	}
	// However much it opens, others keep theirs; what was pushed out is counted.
	most := int(n.objects.Sessions.MaxEntries())
	flood(10_000, 4*most)
	sweep(0)
	if table, _ := rows(db); table == 0 {
		t.Error("a flood pushed out the session of another interface")
	}
	if lost := int(n.evicted.total.Load()); lost < 2*most || lost > 4*most || uint64(lost) > n.Lost() {
		t.Errorf("%d lost of %d sessions", lost, 4*most)
	}
	sweep(time.Hour)
	if table, crowd := rows(web); table+crowd != 0 {
		t.Errorf("%d and %d sessions are left after they were over", table, crowd)
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
