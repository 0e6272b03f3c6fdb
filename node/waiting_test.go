package node

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/node/proxies"
	"moire.dev/moire/snapshot"
)

// hesitant is an applier in front of the kernel side, as the proxies are.
type hesitant struct {
	ordered
	err error
}

func (h *hesitant) Grow(State) error { return h.err }

func (h *hesitant) Shrink(State) error { return nil }

// TestWaitsForProxies: nothing is enforced that the proxies have not taken, and
// nobody is told that it cannot be.
func TestWaitsForProxies(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	h := &hesitant{}
	b.appliers = appliers{h, b.kernel}
	before, acks := b.good, len(b.control.acks)
	h.err = fmt.Errorf("%w: n1", proxies.ErrNotYet)
	r := b.attach(web())
	b.gives(world(b.control, nil)) // grant
	grown := len(b.kernel.grown)
	b.gives(world(b.control, nil)) // endpoint
	b.pass(time.Second)
	if b.good != before || len(b.kernel.grown) != grown || len(b.control.acks) != acks || b.failure != "" {
		t.Errorf("it was enforced, or failed: %v %q", b.control.acks[acks:], b.failure)
	}
	b.unanswered(r)
	h.err = nil
	b.stir()
	b.step()
	if an := b.answered(r); an.err != nil || len(an.attached.Warnings) != 0 {
		t.Errorf("%+v", an)
	}
	if last := b.control.acks[len(b.control.acks)-1]; !last.applied {
		t.Errorf("%+v", last)
	}
	// What a proxy refuses is enforced nowhere, and the last good one stays.
	h.err = errors.New("the proxy n1 refuses its configuration")
	before, grown = b.good, len(b.kernel.grown)
	b.gives(world(b.control, func(s *snapshot.Snapshot) { s.AcceptMassDelete = true }))
	if last := b.control.acks[len(b.control.acks)-1]; last.applied || !strings.Contains(last.err, "refuses") || b.good != before || len(b.kernel.grown) != grown {
		t.Errorf("%+v", last)
	}
}

// TestWaitsToBeServed: an attacher is told when the proxy serves, or that it does
// not when the time is over; also without a control plane.
func TestWaitsToBeServed(t *testing.T) {
	for _, away := range []bool{false, true} {
		b := newBench(t)
		b.gives(world(b.control, nil))
		lacks := "its proxy does not know it yet"
		b.lacks = func(snapshot.AttachmentKey) string { return lacks }
		if b.control.away = away; away {
			b.pass(awayGrace)
			b.pass(awayGrace)
		}
		r := b.attach(web())
		if !away {
			b.gives(world(b.control, nil))
			b.gives(world(b.control, nil))
		}
		b.pass(5 * time.Second)
		b.unanswered(r)
		b.pass(5 * time.Second)
		an := b.answered(r)
		if an.err != nil || len(an.attached.Warnings) != 1 || !away && !strings.Contains(an.attached.Warnings[0], lacks) {
			t.Errorf("away %v: %+v", away, an)
		}
	}
}

// TestModeUnknown: who is not in the snapshot yet is taken to be as strict as the
// strictest of the project.
func TestModeUnknown(t *testing.T) {
	c := &fakeControl{}
	own := &attachment{Key: webKey, VNI: 100, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.65")}, Account: "default", Labels: claims(web().Labels)}
	at := snapshot.Addr{VNI: 100, IP: own.Addrs[0]}
	s := world(c, func(s *snapshot.Snapshot) {
		for i, e := range []snapshot.Endpoint{{Project: "shop", Mode: snapshot.Permissive}, {Project: "other", Mode: snapshot.Strict}} {
			e.Addr = snapshot.Addr{VNI: 100, IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}
			s.Endpoints[e.Addr] = e
		}
	})
	if m := effective(s, []*attachment{own}).Endpoints[at].Mode; m != snapshot.Permissive {
		t.Errorf("mode %s", m)
	}
}
