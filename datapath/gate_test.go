package datapath

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
)

// gate makes a Workload of node b, in both tenants, a Gateway with these ports.
func (w *world) gate(name string, ports ...uint16) {
	n := w.nodes["b"]
	for i := range n.locals {
		if l := &n.locals[i]; l.Key.Workload == name {
			l.Gateway, l.Ports = true, ports
		}
	}
}

// TestGateway: whoever calls a Gateway, in the mesh or not, comes to the proxy, at its
// ports; at others nobody listens, and without the proxy nobody is let in.
func TestGateway(t *testing.T) {
	w, a, b := meshWorld(t)
	w.nodes["b"].meshed("far")
	w.gate("far", 7, 99)
	w.apply()
	b.hand(w.nodes["b"])
	a.hand(w.nodes["a"])
	if err := w.nodes["b"].ProxyUp("node", true); err != nil {
		t.Fatal(err)
	}
	comes := func(when string) {
		t.Helper()
		for _, project := range []string{"acme", "beta"} {
			for _, from := range []string{"web", "plain"} {
				for _, to := range []string{"10.1.0.4", "fd10:1::4"} {
					b.forget()
					got := greet("moire-dp-"+project+"-"+from, to, 7, nil)
					if got.err != nil {
						t.Errorf("%s: %s/%s to %s: %v", when, project, from, to, got.err)
						continue
					}
					got.Close()
					if b.saw("in ") == "" {
						t.Errorf("%s: %s/%s to %s did not come to the proxy", when, project, from, to)
					}
					if got := greet("moire-dp-"+project+"-"+from, to, 8, nil); !errors.Is(got.err, unix.ECONNREFUSED) || got.took > time.Second {
						t.Errorf("%s: %s/%s to port 8 of %s: %v after %v", when, project, from, to, got.err, got.took)
					}
				}
			}
		}
	}
	comes("at first")
	n := w.nodes["b"]
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	comes("without the agent")
	n.open()
	n.record()
	w.apply()
	b.hand(n)
	comes("with another agent")
	if err := w.nodes["b"].ProxyUp("node", false); err != nil {
		t.Fatal(err)
	}
	if got := greet("moire-dp-acme-plain", "10.1.0.4", 7, nil); !errors.Is(got.err, unix.ECONNREFUSED) {
		t.Errorf("without its proxy: %q %v", got.said, got.err)
	}
	w.nodes["b"].find("of the one that was refused", func(r record.Record) bool {
		return r.Drop == "no-proxy" && r.Destination.Workload == "far"
	})
}

// TestMakeNetns: one that is there stays; a plain file that was left in its place
// does not matter.
func TestMakeNetns(t *testing.T) {
	needRoot(t)
	path := t.TempDir() + "/dir/gw"
	inode := func() uint64 {
		t.Helper()
		n, err := openNamespace(path)
		if err != nil {
			t.Fatal(err)
		}
		defer n.close()
		return n.ino
	}
	if err := MakeNetns(path); err != nil {
		t.Fatal(err)
	}
	first := inode()
	if err := MakeNetns(path); err != nil || inode() != first {
		t.Errorf("made twice: %v", err)
	}
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := MakeNetns(path); err != nil {
		t.Fatal(err)
	}
	inode()
	for range 2 {
		if err := RemoveNetns(path); err != nil {
			t.Error(err)
		}
	}
	if n, err := openNamespace(path); err == nil {
		n.close()
		t.Error("it is still there")
	}
}
