package node

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestControlPorts: what the node is told to join by, or the invitation on this
// machine; what was known stays while the control plane is away.
func TestControlPorts(t *testing.T) {
	told := &kernel{cfg: Config{Servers: []string{"192.0.2.1:9444", "[2001:db8::1]:7444", "cp.example:9444", "wrong"}}}
	if got := told.controlPorts(); !slices.Equal(got, []uint16{7444, 9444}) {
		t.Errorf("told: %v", got)
	}
	k := &kernel{cfg: Config{RunDir: t.TempDir()}}
	if got := k.controlPorts(); got != nil {
		t.Errorf("nobody invites: %v", got)
	}
	file := filepath.Join(k.cfg.RunDir, "join.json")
	if err := os.WriteFile(file, []byte(`{"servers": ["127.0.0.1:8444"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := k.controlPorts(); !slices.Equal(got, []uint16{8444}) {
			t.Errorf("invited: %v", got)
		}
		os.Remove(file)
	}
}
