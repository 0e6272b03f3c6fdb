package node

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"moire.dev/moire/datapath"
	"moire.dev/moire/snapshot"
)

// State is what every applier gets.
type State struct {
	// Snapshot is the effective one: the control plane's, and what only this
	// node knows yet.
	Snapshot *snapshot.Snapshot
	// InForce is the same with addresses in the place of names, as of change: what
	// decides about packets and requests alike.
	InForce *snapshot.Snapshot
	change  uint64
	// Locals are the interfaces that are there, sorted by key.
	Locals []Local
}

// Local is one interface that is there.
type Local struct {
	Key   snapshot.AttachmentKey
	VNI   snapshot.VNI
	Addrs []netip.Addr
	MAC   snapshot.MAC
	// Host is the name of the node's end, or of the tap.
	Host string
	// Netns is the path of the namespace with the other end; "" for a tap.
	Netns string
	// Tap: there is no end in a namespace. DHCP: the Workload asks for its
	// addresses.
	Tap, DHCP bool
	Default   datapath.DefaultRoute
	// Gateway: nobody but the proxy is there.
	Gateway bool
}

// applier makes one part of the node match a State.
type applier interface {
	// Name for errors and dumps.
	Name() string
	// Grow adds and changes what the State has; it removes nothing.
	Grow(State) error
	// Shrink removes what the State does not have.
	Shrink(State) error
	Dump(io.Writer) error
}

// appliers are walked forward to grow (who comes later may rely on who came
// before) and backward to shrink.
type appliers []applier

func (as appliers) grow(s State) error {
	for _, a := range as {
		if err := a.Grow(s); err != nil {
			return fmt.Errorf("%s: %w", a.Name(), err)
		}
	}
	return nil
}

// shrink goes on after an error: what can be removed is removed.
func (as appliers) shrink(s State) error {
	var errs []error
	for _, a := range slices.Backward(as) {
		if err := a.Shrink(s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.Name(), err))
		}
	}
	return errors.Join(errs...)
}

func (as appliers) dump(w io.Writer) error {
	var errs []error
	for _, a := range as {
		fmt.Fprintf(w, "# %s\n", a.Name())
		if err := a.Dump(w); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.Name(), err))
		}
	}
	return errors.Join(errs...)
}
