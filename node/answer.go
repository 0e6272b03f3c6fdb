package node

import (
	"errors"
	"fmt"
	"slices"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// errStopping: the agent goes away.
var errStopping = errors.New("the agent is stopping; try again when it runs")

// answerAll answers every request that can be answered, or has waited enough.
func (l *loop) answerAll() {
	for _, r := range slices.Clone(l.waiting) {
		if r.ctx.Err() != nil {
			l.finish(r, answer{err: r.ctx.Err()})
			l.undo(r, r.ctx.Err())
			continue
		}
		late := !l.now().Before(r.deadline)
		switch here, all := l.progress(r); {
		case all, here && !l.dirty && (late || l.alone() && !l.lacking(r)):
			l.succeed(r)
		case late:
			err := l.tooLate(r)
			l.finish(r, answer{err: err})
			l.undo(r, err)
		}
	}
}

// progress: are all interfaces of the request in place, are all ready?
func (l *loop) progress(r *request) (here, all bool) {
	here, all = true, true
	for _, k := range r.keys {
		a := l.attached[k]
		here = here && a != nil && a.here()
		all = all && a != nil && a.stage == ready
	}
	return here, all
}

// lacking: a proxy does not serve all interfaces of the request yet.
func (l *loop) lacking(r *request) bool {
	return slices.ContainsFunc(r.keys, func(k snapshot.AttachmentKey) bool { return l.lacks(k) != "" })
}

// succeed makes it durable that the attacher knows, then tells.
func (l *loop) succeed(r *request) {
	out := local.Attached{WorkloadAPI: l.cfg.workloadAPI()}
	for _, k := range r.keys {
		a := l.attached[k]
		if !a.Answered {
			a.Answered = true
			if err := l.disk.save(a); err != nil {
				err = fmt.Errorf("remember the attachment: %w", err)
				l.finish(r, answer{err: err})
				l.undo(r, err)
				return
			}
		}
		out.Interfaces = append(out.Interfaces, l.inside(a))
		if a.stage != ready {
			out.Warnings = append(out.Warnings, l.warning(a))
		}
	}
	if first := l.attached[r.keys[0]]; !first.Tap {
		if err := l.cfg.writeResolv(first, l.resolvers(first)); err != nil {
			out.Warnings = append(out.Warnings, fmt.Sprintf("the namespace gets no resolv.conf: %v; write it by hand: %q", err, local.ResolvConf(out.Interfaces)))
		}
	}
	l.finish(r, answer{attached: out})
}

// warning says what a plugged attachment lacks.
func (l *loop) warning(a *attachment) string {
	what := fmt.Sprintf("%s/%s on %s", a.Key.Project, a.Key.Workload, a.Key.Network)
	why := "the control plane is away"
	if !l.alone() {
		why = "the control plane has not confirmed it in time"
	}
	if g, ok := l.newest().Grants[a.Key]; ok && g.Error != "" {
		return what + " is closed: " + g.Error
	}
	if id, ok := identityOf(l.newest(), a); !ok || !hasPolicies(l.newest(), a.VNI, id) {
		return what + " is closed until its identity and policy are known: " + why
	}
	if lacks := l.lacks(a.Key); lacks != "" {
		return what + " is attached, but what needs its proxy is refused until that serves it: " + lacks
	}
	return what + " is attached with what this node knows; other nodes may not reach it yet: " + why
}

// tooLate says what a request waited for in vain.
func (l *loop) tooLate(r *request) error {
	for _, k := range r.keys {
		a := l.attached[k]
		if a == nil || a.here() {
			continue
		}
		why := a.why
		if l.failure != "" {
			why += "; " + l.failure
		}
		return fmt.Errorf("%s/%s could not be attached to %s in time: %s; nothing is left attached. 'moire status' shows how the node is", k.Project, k.Workload, k.Network, why)
	}
	return fmt.Errorf("%s/%s could not be attached in time: %s; nothing is left attached", r.keys[0].Project, r.keys[0].Workload, l.failure)
}

// fail answers everybody who waits for the attachment and undoes what they
// made.
func (l *loop) fail(k snapshot.AttachmentKey, err error) {
	for _, r := range slices.Clone(l.waiting) {
		if slices.Contains(r.keys, k) {
			l.finish(r, answer{err: err})
			l.undo(r, err)
		}
	}
}

// undo takes away what the request made. Nobody else waits for it: a second
// request for the same thing did not make it, and is failed with it.
func (l *loop) undo(r *request, why error) {
	fresh := r.fresh
	r.fresh = nil
	for _, k := range fresh {
		if a := l.attached[k]; a != nil && a.stage != leaving {
			l.remove(a, why)
		}
	}
}

// finish ends the wait; the answer goes out at the end of the step, when what
// it says is in force and everybody can see it.
func (l *loop) finish(r *request, an answer) {
	l.waiting = slices.DeleteFunc(l.waiting, func(o *request) bool { return o == r })
	l.answers = append(l.answers, func() {
		select {
		case r.answer <- an:
		default: // it has one
		}
	})
}

// sendAnswers sends what was finished.
func (l *loop) sendAnswers() {
	for _, send := range l.answers {
		send()
	}
	l.answers = nil
}

// refuseAll ends every wait when the agent stops. What is half attached is
// undone at the next start.
func (l *loop) refuseAll() {
	for _, r := range slices.Clone(l.waiting) {
		l.finish(r, answer{err: errStopping})
	}
	l.sendAnswers()
}
