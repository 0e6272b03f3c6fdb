package datapath

import (
	"net"
	"testing"
	"time"

	"moire.dev/moire/snapshot"
)

// TestLots: a tenant that opens sessions to one place without end does not take
// the last port of the node from the others who go there.
func TestLots(t *testing.T) {
	w := outsiders(t)
	w.change = exitsOf(snapshot.Exit{VNI: 100}, snapshot.Exit{VNI: 200})
	w.apply()
	flood := make([]byte, 1)
	inNetns(t, "moire-dp-acme-web", func() error {
		for port := 1024; port < 30_000; port++ {
			c, err := net.DialUDP("udp", &net.UDPAddr{Port: port}, &net.UDPAddr{IP: net.IPv4(192, 168, 77, 3), Port: 7})
			if err != nil {
				continue
			}
			c.Write(flood)
			c.Close()
		}
		return nil
	})
	if who, _ := askedFor(t, "moire-dp-acme-web", "udp", "192.168.77.3", 7, 300*time.Millisecond); who.IsValid() {
		t.Logf("the flood left a port for who sent it: %s", who)
	}
	answered := 0
	for range 20 {
		if who, c := askedFor(t, "moire-dp-other-web", "udp", "192.168.77.3", 7, time.Second); who.IsValid() {
			answered++
			c.Close()
		}
	}
	if answered < 18 {
		t.Errorf("another tenant gets %d answers of 20", answered)
	}
}
