package bpf

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// TestVerifier: the kernel accepts the programs.
func TestVerifier(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatal("loading programs needs root")
		}
		t.Skip("loading programs needs root")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	var objects MoireObjects
	err := LoadMoireObjects(&objects, &ebpf.CollectionOptions{})
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		t.Fatalf("%+v", refused)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { objects.Close() })
	for _, p := range []*ebpf.Program{objects.FromWorkload, objects.FromUnderlay, objects.Connect4, objects.Connect6, objects.Steer} {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, _ := info.VerifiedInstructions()
		t.Logf("%s: %d instructions verified", info.Name, n)
	}
}
