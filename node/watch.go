package node

import (
	"errors"
	"io/fs"
	"slices"

	"moire.dev/moire/snapshot"
)

// start takes up what was there before: attachments, addresses, interfaces and
// the last good snapshot. It changes no kernel state that is as it should be.
func (l *loop) start() error {
	all, err := l.disk.load()
	if err != nil {
		l.log.Error("some attachments could not be read", "error", err)
	}
	for _, a := range all {
		l.attached[a.Key] = a
		a.stage = addressed
		if !a.Answered || len(a.Addrs) == 0 {
			a.stage, a.why = leaving, "was never answered"
		}
	}
	for _, h := range l.pool.Held() {
		if l.attached[h.Key] == nil {
			if err := l.pool.Release(h.Key); err != nil {
				return err
			}
		}
	}
	if err := l.resume(); err != nil {
		return err
	}
	if err := l.loadAccepted(); err != nil {
		l.log.Error("cannot read consent", "error", err)
	}
	for _, a := range all {
		switch {
		case a.stage == leaving:
			l.remove(a, errors.New("the agent was restarted"))
		case a.PID != 0:
			if err := l.follow(a); err != nil && !a.Persist {
				l.remove(a, err)
			}
		}
	}
	l.sweepGateways()
	s, err := l.snapshots.load()
	if err != nil {
		l.log.Error("the last good snapshot cannot be read; the kernel stays as it is until the control plane sends one", "error", err)
		l.failure = err.Error()
	}
	if s != nil {
		l.want(s, s.Version())
	}
	return nil
}

// resume compares interfaces with attachments: strangers go, the others stay
// untouched, missing ones are made by the next step.
func (l *loop) resume() error {
	hosts, err := l.wiring.Plugged()
	if err != nil {
		return err
	}
	known := map[string]*attachment{}
	for _, a := range l.attached {
		known[a.Host] = a
	}
	for _, h := range hosts {
		a := known[h]
		if a == nil {
			l.log.Info("removing an interface that nobody asked for", "host", h)
			if err := l.wiring.Unplug(h); err != nil {
				l.log.Error("cannot remove it", "host", h, "error", err)
			}
			continue
		}
		if a.Tap && a.stage == addressed {
			a.stage, a.why = plugged, "waits for its policy"
		} else if inode, err := netnsInode(a.Netns); err == nil && a.stage == addressed {
			a.stage, a.why, a.inode = plugged, "waits for its policy", inode
		}
	}
	l.dirty = true
	return nil
}

// watch looks for what nobody tells: namespaces that went or were replaced and
// interfaces that are missing.
func (l *loop) watch() {
	l.watched = l.now()
	for _, a := range l.sorted() {
		l.watchNetns(a)
	}
	if l.now().Sub(l.audited) < auditEvery {
		return
	}
	l.audit()
}

// audit looks whether all interfaces are there, and says whether some are not:
// the next step makes them again.
func (l *loop) audit() (missing bool) {
	l.audited = l.now()
	hosts, err := l.wiring.Plugged()
	if err != nil {
		l.log.Error("cannot list the interfaces", "error", err)
		return false
	}
	for _, a := range l.sorted() {
		if a.here() && !slices.Contains(hosts, a.Host) {
			l.log.Warn("an interface is missing and is made again", "host", a.Host, "workload", a.Key.Workload)
			a.stage, a.why, l.dirty, missing = addressed, "the interface is missing", true, true
		}
	}
	return missing
}

func (l *loop) watchNetns(a *attachment) {
	if a.Tap || a.stage == leaving || a.stage == pending {
		return
	}
	inode, err := netnsInode(a.Netns)
	switch {
	case err == nil && inode == a.inode:
	case err == nil:
		if a.here() {
			a.stage, a.why, l.dirty = addressed, "the namespace is another one", true
		}
	case !errors.Is(err, fs.ErrNotExist):
		a.why = err.Error()
	case a.Persist:
		if a.here() {
			a.stage, a.why, l.dirty = addressed, "the namespace is gone", true
		}
	case a.PID == 0:
		l.log.Info("namespace is gone, detaching", "netns", a.Netns, "workload", a.Key.Workload)
		l.remove(a, errors.New("the network namespace is gone"))
	}
}

// sameReport compares all but the lost records and since when something is
// healthy.
func sameReport(a, b snapshot.Report) bool {
	sameAttachment := func(a, b snapshot.Attachment) bool {
		return a.AttachmentKey == b.AttachmentKey && a.Account == b.Account && slices.Equal(a.Labels, b.Labels) &&
			slices.Equal(a.Addresses, b.Addresses) && a.MAC == b.MAC && a.VNI == b.VNI
	}
	sameBlock := func(a, b snapshot.Block) bool {
		return a.BlockKey == b.BlockKey && slices.Equal(a.Excluded, b.Excluded)
	}
	sameHealth := func(a, b snapshot.Health) bool {
		return a.CheckKey == b.CheckKey && a.Healthy == b.Healthy && a.Error == b.Error
	}
	if !slices.Equal(a.Trusts, b.Trusts) || a.Held != b.Held || a.Proxies != b.Proxies || a.Repairs != b.Repairs || !slices.EqualFunc(a.Health, b.Health, sameHealth) {
		return false
	}
	return slices.EqualFunc(a.Attachments, b.Attachments, sameAttachment) && slices.EqualFunc(a.Blocks, b.Blocks, sameBlock)
}
