package proxy

import (
	"fmt"
	"os"
	"testing"

	"moire.dev/moire/proxy/engine"
)

// ring is what the workers of this run of the suite use.
var ring string

// TestMain runs the suite with epoll, and once more with io_uring where the
// kernel allows it.
func TestMain(m *testing.M) {
	if path := os.Getenv("PROXY_CHILD"); path != "" {
		child(path)
		return
	}
	ring = "off"
	if code := m.Run(); code != 0 {
		os.Exit(code)
	}
	l, err := engine.New(engine.Options{Ring: engine.RingOn})
	if err != nil {
		fmt.Println("not with io_uring:", err)
		return
	}
	l.Close()
	ring = "on"
	fmt.Println("with io_uring")
	os.Exit(m.Run())
}
