package cli

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The control plane of others, such as a demo, keeps its files.
func TestDownKeepsTheFilesOfOthers(t *testing.T) {
	dir, err := os.MkdirTemp("", "down") // short, as paths of sockets must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "n1.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if own := ownFiles(dir, "n2"); !slices.Contains(own, "kubeconfig") || !slices.Contains(own, "n2.sock") {
		t.Errorf("nobody serves there, but only %v go", own)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "n7.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if own := ownFiles(dir, "n2"); slices.Contains(own, "kubeconfig") || slices.Contains(own, "join.json") {
		t.Errorf("n7 serves there, and its control plane would lose %v", own)
	}
}
