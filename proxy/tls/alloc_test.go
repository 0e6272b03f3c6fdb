//go:build !race

package tls

import "testing"

// TestAllocations: a message there and back costs the two small objects that
// crypto/tls makes for a record that it reads, and no more.
func TestAllocations(t *testing.T) {
	client, server := configs(t, 0, nil)
	c, s := mustConnect(t, client, server)
	p, data := make([]byte, 1024), make([]byte, 256)
	once := func() {
		move(t, c, s, data, p)
		move(t, s, c, data, p)
	}
	once()
	if n := testing.AllocsPerRun(200, once); n > 2 {
		t.Errorf("%v allocations, want 2 at most", n)
	}
}
