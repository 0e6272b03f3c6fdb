package node

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"moire.dev/moire/datapath"
	"moire.dev/moire/snapshot"
)

// gateways attaches the Gateways that the control plane wants here, each in a
// network namespace that we make for it, and takes away those that it no longer
// wants. They are attachments like all others, but nobody asked for them and nobody
// waits.
func (l *loop) gateways() {
	if l.wanted == nil {
		return // nobody has said anything yet
	}
	want := map[snapshot.AttachmentKey]snapshot.Gateway{}
	for _, g := range l.wanted.Gateways {
		want[g.Attachment] = g
	}
	for _, a := range l.sorted() {
		if !a.Gateway || a.stage == leaving {
			continue
		}
		if g, wanted := want[a.Key]; !wanted || a.Account != g.Account || !slices.Equal(a.Labels, g.Labels) {
			l.log.Info("this node does not run a Gateway any more", "project", a.Key.Project, "workload", a.Key.Workload)
			l.remove(a, errors.New("the Gateway is no more, or another one"))
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(want), snapshot.AttachmentKey.Compare) {
		a := l.attached[k]
		if a == nil {
			if a = l.addGateway(want[k]); a == nil {
				continue
			}
		}
		if !a.Gateway {
			a.why = cmp.Or(a.why, "a Gateway of this name cannot be here too") // who came first stays
			continue
		}
		if a.stage == leaving {
			continue
		}
		if err := l.wiring.MakeNetns(a.Netns); err != nil {
			a.why = err.Error() // Plug says it again, and the log once
		}
	}
}

// addGateway makes the attachment of a Gateway; nil: not now.
func (l *loop) addGateway(g snapshot.Gateway) *attachment {
	k := g.Attachment
	path := l.cfg.gatewayFile(k.Project, k.Workload)
	for _, o := range l.attached {
		if o.Netns == path {
			return nil // in another Network, about to leave
		}
	}
	a := &attachment{
		Key: k, Account: g.Account, Labels: g.Labels, Netns: path, IfName: "eth0", Host: datapath.HostName(l.cfg.Name, k),
		Gateway: true, Persist: true, Answered: true, Since: l.now().UTC(), stage: pending, why: "waits for the control plane",
	}
	if err := l.add(a); err != nil {
		l.log.Error("cannot begin to run a Gateway", "gateway", g.Project+"/"+g.Name, "error", err)
		return nil
	}
	l.log.Info("this node runs a Gateway", "gateway", g.Project+"/"+g.Name)
	return a
}

// removeGateways removes the namespaces of all Gateways.
func (c *Config) removeGateways() error {
	entries, err := os.ReadDir(c.gatewayDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, datapath.RemoveNetns(filepath.Join(c.gatewayDir(), e.Name())))
	}
	return errors.Join(err, os.Remove(c.gatewayDir()))
}

// sweepGateways removes the namespaces that an agent before us made for nobody that
// is here now.
func (l *loop) sweepGateways() {
	entries, err := os.ReadDir(l.cfg.gatewayDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Error("cannot look for namespaces of Gateways", "error", err)
	}
	for _, e := range entries {
		path := filepath.Join(l.cfg.gatewayDir(), e.Name())
		if slices.ContainsFunc(l.sorted(), func(a *attachment) bool { return a.Netns == path }) {
			continue
		}
		if err := l.wiring.RemoveNetns(path); err != nil {
			l.log.Error("cannot remove the namespace of a Gateway that is gone", "netns", path, "error", err)
		}
	}
}
