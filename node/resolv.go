package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// inside is the interface as the Workload sees it, by the newest snapshot.
func (l *loop) inside(a *attachment) local.Interface {
	s := l.newest()
	n := s.Networks[a.VNI]
	return withResolver(a.inside(n, l.wiring.MTU(n.MTU)), s)
}

// withResolver adds where names are answered, for the families that the interface
// has: one server, so that what fails does not fail twice.
func withResolver(i local.Interface, s *snapshot.Snapshot) local.Interface {
	d, ok := s.Names[snapshot.VNI(i.VNI)]
	if !ok || len(i.Addresses) == 0 {
		return i
	}
	i.Nameservers = []netip.Addr{snapshot.NameServer6}
	for _, a := range i.Addresses {
		if a.Is4() {
			i.Nameservers[0] = snapshot.NameServer4
		}
	}
	i.Search = search(d)
	return i
}

// search is the domains of short names as resolv.conf and DHCP have them.
func search(d snapshot.DNS) (out []string) {
	for _, domain := range d.Search {
		out = append(out, strings.TrimSuffix(domain, "."))
	}
	return out
}

// resolvConf is what `ip netns exec` shows in a namespace that has a name; ""
// for others, and for commands of `moire run`, which bring their own.
func (c *Config) resolvConf(netns string, pid int) string {
	dir, name := filepath.Split(filepath.Clean(netns))
	if pid != 0 || c.EtcNetns == "" || dir != "/run/netns/" && dir != "/var/run/netns/" {
		return ""
	}
	return filepath.Join(c.EtcNetns, name, "resolv.conf")
}

// resolvMark is the first line of a file of ours.
func resolvMark(k snapshot.AttachmentKey) string {
	return fmt.Sprintf("# By Moiré for %s/%s: it goes with its attachment.\n", k.Project, k.Workload)
}

// writeResolv gives a namespace of others its resolv.conf, unless it has one.
func (c *Config) writeResolv(a *attachment, interfaces []local.Interface) error {
	path, text := c.resolvConf(a.Netns, a.PID), local.ResolvConf(interfaces)
	if path == "" || text == "" {
		return nil
	}
	text = resolvMark(a.Key) + text
	old, err := os.ReadFile(path)
	switch {
	case err == nil && (string(old) == text || !strings.HasPrefix(string(old), resolvMark(a.Key))):
		return nil // it is right, or somebody else's
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// renewResolv makes the files follow a change of the search domains.
func (l *loop) renewResolv() {
	if l.wanted == nil || l.named == l.wanted {
		return
	}
	old := l.named
	l.named = l.wanted
	if old != nil && maps.EqualFunc(old.Names, l.wanted.Names, func(a, b snapshot.DNS) bool { return slices.Equal(a.Search, b.Search) }) {
		return
	}
	done := map[string]bool{}
	for _, a := range l.present() {
		if !a.Answered || a.Tap || done[a.Netns] {
			continue
		}
		done[a.Netns] = true
		if err := l.cfg.writeResolv(a, l.resolvers(a)); err != nil {
			l.log.Warn("a resolv.conf does not follow", "netns", a.Netns, "error", err)
		}
	}
}

// resolvers are the interfaces of the Workload in that namespace, with where
// names are answered, in the order of their names.
func (l *loop) resolvers(a *attachment) []local.Interface {
	var out []local.Interface
	for _, o := range l.present() {
		if o.Key.Project == a.Key.Project && o.Key.Workload == a.Key.Workload && o.Netns == a.Netns {
			out = append(out, l.inside(o))
		}
	}
	slices.SortStableFunc(out, func(a, b local.Interface) int {
		return cmp.Or(cmp.Compare(len(a.IfName), len(b.IfName)), cmp.Compare(a.IfName, b.IfName))
	})
	return out
}

// removeResolv takes away what writeResolv made.
func (c *Config) removeResolv(a *attachment) error {
	path := c.resolvConf(a.Netns, a.PID)
	if path == "" {
		return nil
	}
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !strings.HasPrefix(string(old), resolvMark(a.Key)) {
		return nil
	}
	if err == nil {
		err = os.Remove(path)
	}
	os.Remove(filepath.Dir(path)) // unless something of others is in it
	return err
}
