package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"moire.dev/moire/datapath"
	"moire.dev/moire/ipam"
	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// begin takes a request in; it is answered at once or by a later step.
func (l *loop) begin(r *request) {
	var err error
	switch {
	case r.attach != nil:
		if err = l.beginAttach(r); err == nil {
			l.waiting = append(l.waiting, r)
			return
		}
		l.undo(r, err)
	case r.detach != nil:
		err = l.beginDetach(r.detach)
	default:
		err = l.consent(r.consent)
	}
	l.finish(r, answer{err: err})
}

func (l *loop) beginAttach(r *request) error {
	a := r.attach
	if err := check(a); err != nil {
		return invalid{err}
	}
	var inode uint64
	var err error
	if !a.Tap {
		if inode, err = netnsInode(a.Netns); err != nil {
			return fmt.Errorf("the network namespace: %w", err)
		}
	}
	if a.PID != 0 {
		if r.born, err = bornAt(a.PID); err != nil {
			return err
		}
	}
	wait := l.cfg.Wait
	if a.WaitMillis > 0 {
		wait = min(time.Duration(a.WaitMillis)*time.Millisecond, 10*time.Minute)
	}
	r.deadline = l.now().Add(wait)
	for _, n := range a.Networks {
		k := snapshot.AttachmentKey{Project: a.Project, Workload: a.Workload, Network: n}
		r.keys = append(r.keys, k)
		if old := l.attached[k]; old != nil {
			if err := l.again(old, r, inode); err != nil {
				return err
			}
		}
	}
	others := l.beside(a, inode)
	names, err := namesFor(a, others)
	if err != nil {
		return invalid{err}
	}
	routes, err := routesFor(a, others)
	if err != nil {
		return invalid{err}
	}
	for i, k := range r.keys {
		if l.attached[k] != nil {
			continue
		}
		r.fresh = append(r.fresh, k)
		if err := l.add(l.fresh(k, r, names[i], routes[i])); err != nil {
			return err
		}
	}
	return nil
}

// beside lists the interfaces that are where the request wants its own: in the
// same namespace, or as taps of the same Workload.
func (l *loop) beside(r *local.Attach, inode uint64) []*attachment {
	return slices.DeleteFunc(l.sorted(), func(a *attachment) bool {
		if r.Tap || a.Tap {
			return !r.Tap || !a.Tap || a.Key.Project != r.Project || a.Key.Workload != r.Workload
		}
		return a.Netns != r.Netns && !sameNamespace(a.Netns, inode)
	})
}

func sameNamespace(path string, inode uint64) bool {
	now, err := netnsInode(path)
	return err == nil && now == inode
}

// again: the attachment is there. The same request once more is fine.
func (l *loop) again(old *attachment, r *request, inode uint64) error {
	there := old.Netns == r.attach.Netns || !r.attach.Tap && sameNamespace(old.Netns, inode)
	if old.stage != leaving && old.Tap == r.attach.Tap && there {
		if old.PID == r.attach.PID && old.Born == r.born && old.Account == r.attach.Account && slices.Equal(old.Labels, claims(r.attach.Labels)) {
			return nil
		}
	}
	where, who := old.Netns, ""
	if old.Tap {
		where = "tap " + old.Host
	}
	if old.PID != 0 {
		who = fmt.Sprintf(" by process %d", old.PID)
	}
	return fmt.Errorf("%s/%s is attached to %s already, in %s%s; choose another name, or take it away with 'moire detach %s/%s'",
		old.Key.Project, old.Key.Workload, old.Key.Network, where, who, old.Key.Project, old.Key.Workload)
}

func (l *loop) fresh(k snapshot.AttachmentKey, r *request, ifName string, route datapath.DefaultRoute) *attachment {
	a := &attachment{
		Key: k, Account: r.attach.Account, Labels: claims(r.attach.Labels),
		Netns: r.attach.Netns, IfName: ifName, Host: datapath.HostName(l.cfg.Name, k), Default: route,
		Tap: r.attach.Tap, DHCP: r.attach.DHCP || r.attach.Tap, Owner: r.attach.Owner, Group: r.attach.Group,
		PID: r.attach.PID, Born: r.born, Persist: r.attach.Persist, Since: l.now().UTC(),
		stage: pending, why: "waits for the control plane",
	}
	if a.Tap {
		a.IfName = a.Host
	}
	return a
}

// add makes a new attachment durable and watches its process.
func (l *loop) add(a *attachment) error {
	if err := l.disk.save(a); err != nil {
		return fmt.Errorf("remember the attachment: %w", err)
	}
	l.attached[a.Key] = a
	return l.follow(a)
}

// follow detaches when the process ends.
func (l *loop) follow(a *attachment) error {
	if a.PID == 0 {
		return nil
	}
	ctx, stop := context.WithCancel(l.ctx)
	a.unfollow = stop
	return l.watcher.watch(ctx, a.PID, a.Born, func() {
		select {
		case l.exits <- a:
		case <-ctx.Done():
		}
	})
}

// advance moves one attachment as far as the snapshot allows: grant, then
// addresses, then the interface.
func (l *loop) advance(a *attachment) {
	if l.now().Before(a.retry) {
		return
	}
	err := l.tryAdvance(a)
	if err == nil {
		return
	}
	_, final := errors.AsType[refusal](err)
	final = final && !a.Answered
	if a.why != err.Error() || final {
		what := "attachment waits"
		if final {
			what = "attachment refused"
		}
		l.log.Warn(what, "project", a.Key.Project, "workload", a.Key.Workload, "network", a.Key.Network, "error", err)
	}
	a.why, a.retry = err.Error(), l.now().Add(busyTick)
	if a.Answered {
		a.retry = l.now().Add(idleTick)
	}
	if final {
		l.fail(a.Key, err)
	}
}

// refusal is an error that waiting does not cure.
type refusal struct{ error }

// Unwrap gives the reason.
func (r refusal) Unwrap() error { return r.error }

func (l *loop) tryAdvance(a *attachment) error {
	s := l.newest()
	switch a.stage {
	case leaving:
		return l.leave(a)
	case pending, plugged, ready:
		if err := l.address(a, s); err != nil {
			return err
		}
	}
	if a.here() {
		return l.reroute(a, s)
	}
	if a.stage != addressed {
		return nil
	}
	if l.plugs == plugsPerStep {
		l.backlog = true
		return nil
	}
	l.plugs++
	return l.plug(a, s)
}

// address gives the attachment the addresses that its Grant wants, if it does
// not have them.
func (l *loop) address(a *attachment, s *snapshot.Snapshot) error {
	g, granted := s.Grants[a.Key]
	switch {
	case granted && g.Error != "":
		if a.stage != pending {
			a.why = g.Error // its endpoint is not in the snapshot, so it is closed
			return nil
		}
		if l.now().Sub(a.Since) < staleGrant {
			return nil
		}
		return refusal{errors.New(g.Error)}
	case granted:
		n, ok := s.Networks[g.VNI]
		if !ok || fits(a, g, n, s) {
			return nil
		}
		return l.take(a, g, n, s)
	case a.stage == pending && l.alone():
		if project, _ := a.Key.InNetwork(); project != a.Key.Project {
			return fmt.Errorf("the control plane is away, and only it knows whether %s consents; it waits for it ('moire status')", a.Key.Network)
		}
		n, ok := networkOf(s, a.Key)
		if !ok && l.now().Sub(l.away) < unknownGrace {
			return nil
		}
		if !ok {
			return refusal{fmt.Errorf("the control plane is away, and this node does not know the Network %s yet; attach again when it is back ('moire status')", inFull(a.Key))}
		}
		return l.take(a, snapshot.Grant{AttachmentKey: a.Key, VNI: n.VNI}, n, s)
	}
	return nil
}

// fits: nothing of the Grant is missing.
func fits(a *attachment, g snapshot.Grant, n snapshot.Network, s *snapshot.Snapshot) bool {
	if a.stage == pending || a.VNI != g.VNI || g.MAC != (snapshot.MAC{}) && g.MAC != a.MAC {
		return false
	}
	if len(g.Addresses) > 0 {
		return slices.Equal(a.Addrs, g.Addresses)
	}
	// A Network that grew a family gives it to those that were there before,
	// as soon as there is a block.
	missing := familiesOf(n.Prefixes) &^ familiesOfAddrs(a.Addrs)
	return !a.Static && (missing == 0 || !slices.ContainsFunc(blocksOf(s, n.VNI), func(b snapshot.Block) bool {
		return familiesOf([]netip.Prefix{b.CIDR})&missing != 0
	}))
}

// take makes addresses and MAC durable, in the pool first.
func (l *loop) take(a *attachment, g snapshot.Grant, n snapshot.Network, s *snapshot.Snapshot) error {
	next := *a
	next.VNI, next.Static = g.VNI, len(g.Addresses) > 0
	var err error
	if next.Static {
		next.Addrs = slices.SortedFunc(slices.Values(g.Addresses), netip.Addr.Compare)
		err = l.pool.TakeStatic(a.Key, g.VNI, next.Addrs)
	} else {
		next.Addrs, err = l.pool.Take(a.Key, g.VNI, blocksOf(s, g.VNI), familiesOf(n.Prefixes))
		slices.SortFunc(next.Addrs, netip.Addr.Compare)
	}
	if err != nil {
		return err
	}
	if next.MAC = g.MAC; next.MAC == (snapshot.MAC{}) {
		if next.MAC, err = l.pool.MAC(a.Key, s.Nodes[l.cfg.Name].Number); err != nil {
			return err
		}
	}
	next.stage, next.why = addressed, "the interface is being made"
	if err := l.disk.save(&next); err != nil {
		return fmt.Errorf("remember the addresses: %w", err)
	}
	*a, l.dirty = next, true
	return nil
}

// plug makes or repairs the interface.
func (l *loop) plug(a *attachment, s *snapshot.Snapshot) error {
	var inode uint64
	var err error
	if !a.Tap {
		if inode, err = netnsInode(a.Netns); err != nil {
			return fmt.Errorf("the network namespace: %w", err)
		}
	}
	n, ok := s.Networks[a.VNI]
	if !ok {
		return fmt.Errorf("the Network %s is not in the snapshot of this node", inFull(a.Key))
	}
	linked, hop := l.linked.of(s, a)
	if err := l.wiring.Plug(a.plug(n, linked)); err != nil {
		if a.Tap {
			return err
		}
		return fmt.Errorf("make the interface %s in %s: %w", a.IfName, a.Netns, err)
	}
	if err := l.reached(a, linked, hop); err != nil {
		return err
	}
	a.stage, a.why, a.inode, l.dirty = plugged, "waits for its policy", inode, true
	return nil
}

// settle notes that policy is in force for an attachment, and that the proxy
// which it needs serves it.
func (l *loop) settle(a *attachment) {
	switch {
	case a.stage == plugged && !l.dirty && l.good == l.wanted && confirmed(l.good, a):
		if lacks := l.lacks(a.Key); lacks != "" {
			a.why = "waits for its proxy: " + lacks
			return
		}
		a.stage, a.why = ready, ""
	case a.stage == ready && !confirmed(l.good, a):
		a.stage, a.why = plugged, "waits for its policy"
	}
}

func networkOf(s *snapshot.Snapshot, k snapshot.AttachmentKey) (snapshot.Network, bool) {
	project, name := k.InNetwork()
	for _, n := range s.Networks {
		if n.Project == project && n.Name == name {
			return n, true
		}
	}
	return snapshot.Network{}, false
}

func blocksOf(s *snapshot.Snapshot, vni snapshot.VNI) []snapshot.Block {
	var out []snapshot.Block
	for k, b := range s.Blocks {
		if k.VNI == vni {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b snapshot.Block) int { return a.BlockKey.Compare(b.BlockKey) })
	return out
}

func familiesOf(ps []netip.Prefix) (f ipam.Families) {
	for _, p := range ps {
		f |= familiesOfAddrs([]netip.Addr{p.Addr()})
	}
	return f
}

func familiesOfAddrs(as []netip.Addr) (f ipam.Families) {
	for _, a := range as {
		if a.Is4() {
			f |= ipam.IPv4
		} else {
			f |= ipam.IPv6
		}
	}
	return f
}
