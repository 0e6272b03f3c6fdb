package node

import (
	"errors"
	"fmt"

	"moire.dev/moire/node/local"
	"moire.dev/moire/node/proxies"
	"moire.dev/moire/snapshot"
)

// receive takes in what the control plane wants, unless it must be refused:
// then the node stays what it is, and says why.
func (l *loop) receive(s *snapshot.Snapshot) {
	v := s.Version()
	if l.wanted != nil && l.versions.wanted == v {
		if l.wanted == l.good {
			l.up.Ack(v, true, "")
		}
		return
	}
	if s.Node != l.cfg.Name {
		l.refuse(v, fmt.Sprintf("snapshot %s is for node %q, this is %q; kept the last good one", v, s.Node, l.cfg.Name))
		return
	}
	if v != l.accepted.Version && !s.AcceptMassDelete {
		if loss := wouldLose(l.newest(), s, l.present()); loss != "" {
			l.held = s
			l.heldWhy = fmt.Sprintf("snapshot %s %s; kept the last good one. If that is meant, run 'moire-node consent --accept-risk=%s %s' on the node, or annotate the Node with moire.dev/accept-risk=%s",
				v, loss, local.RiskMassDelete, v, local.RiskMassDelete)
			l.refuse(v, l.heldWhy)
			return
		}
	}
	l.want(s, v)
}

func (l *loop) refuse(v snapshot.Version, why string) {
	if l.failure != why {
		l.log.Error("snapshot refused", "version", v, "why", why)
	}
	l.failure = why
	l.up.Ack(v, false, why)
}

func (l *loop) want(s *snapshot.Snapshot, v snapshot.Version) {
	l.wanted, l.versions.wanted, l.versions.wantedSince = s, v, l.now()
	l.held, l.heldWhy, l.failure, l.retry, l.pause = nil, "", "", l.now(), 0
}

// apply makes the node what is wanted. What cannot be enforced is refused and
// tried again later; until then the last good snapshot stays in force.
func (l *loop) apply() {
	if l.wanted != nil && l.wanted != l.good && !l.now().Before(l.retry) && !l.applyWanted() {
		return
	}
	if l.now().Sub(l.enforced) >= compareEvery {
		l.dirty = true // what the kernel has is compared with what it should
	}
	if !l.dirty || l.good == nil {
		return
	}
	if err := l.enforce(l.good); errors.Is(err, proxies.ErrNotYet) {
		return
	} else if err != nil {
		if l.failure != err.Error() {
			l.log.Error("cannot enforce", "version", l.versions.good, "error", err)
		}
		l.failure = err.Error()
		return
	}
	l.dirty = false
	if l.wanted == l.good && l.failure != "" {
		l.failure = ""
		l.up.Ack(l.versions.good, true, "")
	}
}

// applyWanted enforces what is wanted, or notes why that cannot be. It returns
// false when the proxies have not taken it yet: they say when they have.
func (l *loop) applyWanted() bool {
	// On disk before the kernel: after a crash what is read is never older
	// than what was enforced.
	if l.saved != l.wanted {
		if err := l.snapshots.save(l.wanted); err != nil {
			l.log.Error("cannot save the snapshot; after a restart without the control plane this node would be what it was before", "error", err)
		} else {
			l.saved = l.wanted
		}
	}
	err := l.enforce(l.wanted)
	if errors.Is(err, proxies.ErrNotYet) {
		return false
	}
	if _, grown := errors.AsType[shrinkError](err); err == nil || grown {
		l.good, l.versions.good, l.versions.goodSince = l.wanted, l.versions.wanted, l.now()
	}
	if err == nil {
		l.dirty, l.failure, l.pause = false, "", 0
		l.log.Debug("snapshot applied", "version", l.versions.good)
		l.up.Ack(l.versions.good, true, "")
		return true
	}
	if l.failure != err.Error() {
		l.log.Error("cannot enforce the snapshot", "version", l.versions.wanted, "error", err)
	}
	l.failure, l.dirty = err.Error(), true
	l.up.Ack(l.versions.wanted, false, l.failure)
	l.pause = min(max(2*l.pause, firstRetry), lastRetry)
	l.retry = l.now().Add(l.pause)
	if l.good != nil && l.good != l.wanted {
		if err := l.snapshots.save(l.good); err != nil {
			l.log.Error("cannot save the last good snapshot", "error", err)
		} else {
			l.saved = l.good
		}
	}
	return true
}

// shrinkError: everything wanted is there, but not everything else is gone.
type shrinkError struct{ error }

// Unwrap gives the reason.
func (e shrinkError) Unwrap() error { return e.error }

// enforce grows forward, then shrinks backward. Nothing is swept before it has
// all grown.
func (l *loop) enforce(s *snapshot.Snapshot) error {
	l.enforced = l.now()
	defer l.repaired()
	state := l.state(s)
	err := l.appliers.grow(state)
	if err != nil && !errors.Is(err, proxies.ErrNotYet) && l.audit() {
		// An interface went away under our hands; the rest need not wait.
		state = l.state(s)
		err = l.appliers.grow(state)
	}
	if err != nil {
		return err
	}
	if err := l.appliers.shrink(state); err != nil {
		return shrinkError{err}
	}
	return nil
}

// repaired tells of what was not as it should be, and is again.
func (l *loop) repaired() {
	if n, last := l.wiring.Repairs(); n != l.repairs.count {
		l.log.Warn("what the kernel has was changed by somebody else, and is repaired", "rows", n-l.repairs.count, "last", last)
		l.repairs = repairs{n, last}
	}
}

// repairs since the agent started.
type repairs struct {
	count uint64
	last  string
}

// state is what the appliers get when s is in force.
func (l *loop) state(s *snapshot.Snapshot) State {
	present := l.present()
	state := State{Snapshot: effective(l.harmless(s), present)}
	for _, a := range present {
		state.Locals = append(state.Locals, a.local())
	}
	state.InForce, state.change = l.resolve(state)
	return state
}
