package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// errUnknown: there is nothing to detach.
var errUnknown = errors.New("no such attachment on this node; 'moire status' and 'moire get workloads' list them")

func (l *loop) beginDetach(d *local.Detach) error {
	var errs []error
	found := false
	for _, a := range l.sorted() {
		if a.Key.Project != d.Project || a.Key.Workload != d.Workload {
			continue
		}
		if len(d.Networks) > 0 && !slices.Contains(d.Networks, a.Key.Network) && !slices.Contains(d.Networks, inFull(a.Key)) {
			continue
		}
		found = true
		l.fail(a.Key, errors.New("it was detached meanwhile"))
		if l.attached[a.Key] == a {
			a.stage, a.why = leaving, "is being detached"
			errs = append(errs, l.leave(a))
		}
	}
	if !found {
		return fmt.Errorf("%s/%s: %w", d.Project, d.Workload, errUnknown)
	}
	return errors.Join(errs...)
}

// ended: the process of the attachment has ended.
func (l *loop) ended(a *attachment) {
	if l.attached[a.Key] != a || a.Persist {
		return
	}
	l.log.Info("process ended, detaching", "project", a.Key.Project, "workload", a.Key.Workload, "network", a.Key.Network, "pid", a.PID)
	l.remove(a, fmt.Errorf("process %d ended", a.PID))
}

// remove fails who waits for the attachment and takes it away; what does not
// work at once is tried again by later steps.
func (l *loop) remove(a *attachment, why error) {
	l.fail(a.Key, why)
	if l.attached[a.Key] != a {
		return
	}
	a.stage = leaving
	if err := l.leave(a); err != nil {
		a.why, a.retry = err.Error(), l.now().Add(idleTick)
		l.log.Error("cannot detach yet", "host", a.Host, "error", err)
	}
}

// leave takes the interface away, forgets the attachment and gives its
// addresses back, in this order: an address is free only when nothing can use
// it any more. Each part may be repeated.
func (l *loop) leave(a *attachment) error {
	l.dirty = true
	if err := l.wiring.Unplug(a.Host); err != nil {
		return fmt.Errorf("remove interface %s: %w", a.Host, err)
	}
	if err := l.disk.remove(a.Key); err != nil {
		return fmt.Errorf("forget the attachment: %w", err)
	}
	if err := l.pool.Release(a.Key); err != nil {
		return fmt.Errorf("give the addresses back: %w", err)
	}
	delete(l.attached, a.Key)
	if a.unfollow != nil {
		a.unfollow() // the process may go on for long
	}
	if l.others(a.Key) {
		return nil
	}
	if err := l.cfg.removeResolv(a); err != nil {
		l.log.Warn("cannot remove the resolv.conf of a namespace", "error", err)
	}
	if a.Gateway {
		if err := l.wiring.RemoveNetns(a.Netns); err != nil {
			l.log.Warn("cannot remove the namespace of a Gateway", "error", err)
		}
	}
	if a.PID != 0 {
		if err := removeNetnsFile(l.cfg.netnsFile(a.Key.Project, a.Key.Workload)); err != nil {
			l.log.Warn("cannot remove the namespace of a process that ended", "error", err)
		}
	}
	return nil
}

// others: the Workload has more interfaces here.
func (l *loop) others(k snapshot.AttachmentKey) bool {
	for o := range l.attached {
		if o.Project == k.Project && o.Workload == k.Workload {
			return true
		}
	}
	return false
}

// removeNetnsFile removes what `moire run` leaves behind when it is killed.
func removeNetnsFile(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
