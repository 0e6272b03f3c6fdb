package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"moire.dev/moire/datapath/bpf"
)

// standLinger is how long a proxy may go on with what it has in a namespace in
// which it is no longer needed.
const standLinger = 30 * time.Second

// standIn finds the stand of the namespace at a path, or makes one, which does
// nothing yet. nil: there is none, as the namespace is gone, or nobody wants one.
func (d *Datapath) standIn(path string, wanted bool) (*stand, error) {
	ns, err := openNamespace(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errNoNamespace) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, s := range d.stands {
		if s.ns.same(ns) {
			return s, ns.close()
		}
	}
	if !wanted {
		return nil, ns.close()
	}
	cookie, err := ns.cookie()
	if err != nil {
		ns.close()
		return nil, err
	}
	s := &stand{ns: ns, cookie: cookie, insides: map[int]int{}}
	d.stands[cookie] = s
	return s, nil
}

// growStands makes every namespace ready in which a proxy stands. The row comes
// last: then connections are led to the proxy.
func (d *Datapath) growStands(m *wantedMesh, verify bool) error {
	var errs []error
	for _, cookie := range slices.Sorted(maps.Keys(m.stands)) {
		want, s := m.stands[cookie], d.stands[cookie]
		if err := d.growStand(s, want, verify); err != nil {
			errs = append(errs, fmt.Errorf("make the namespace of %s ready for a proxy: %w", want.keys[0].Project+"/"+want.keys[0].Workload, err))
		}
	}
	d.intercept(m)
	return errors.Join(errs...)
}

func (d *Datapath) growStand(s *stand, want *wantedStand, verify bool) error {
	row, had := want.row, d.tables.stands.rows[s.cookie]
	row.Port, row.Lent = cmp.Or(s.row.Port, had.Port), cmp.Or(s.row.Lent, had.Lent)
	s.leaving = time.Time{}
	if s.ready && row == s.row && row == had && !verify {
		return nil
	}
	err := inOrder(
		func() error { return d.steer(s) },
		func() error { return d.lend(s, &row) },
		func() error { return s.lead(&row, &d.writes) },
		func() error { return d.listen(s, &row) },
		func() error { return d.tables.stands.put(s.cookie, row) },
	)
	if err != nil {
		return err
	}
	s.row, s.ready = row, true
	return nil
}

// lend sees to it that the sockets of the Workload answer a proxy where it is. The
// row says that it was not so before, and says so first.
func (d *Datapath) lend(s *stand, row *bpf.MoireStand) error {
	on, err := s.setting(markAccept)
	if err != nil || on == "1" {
		return err
	}
	if row.Lent == 0 {
		row.Lent = 1
		if err := d.tables.stands.put(s.cookie, bpf.MoireStand{Lent: 1}); err != nil {
			return err
		}
	} else {
		d.writes.found("mesh", "was switched off,", markAccept)
	}
	return s.set(markAccept, "1")
}

// intercept tells what the proxies need.
func (d *Datapath) intercept(m *wantedMesh) {
	var all []Interception
	for _, cookie := range slices.Sorted(maps.Keys(m.stands)) {
		s, want := d.stands[cookie], m.stands[cookie]
		if !s.ready {
			continue
		}
		all = append(all, Interception{
			Namespace: strconv.FormatUint(cookie, 10), Proxy: want.proxy, Interfaces: want.keys, Netns: int(s.ns.file.Fd()),
			Outbound: slices.Clone(s.listeners[listensOut]), Inbound: slices.Clone(s.listeners[listensIn]),
		})
	}
	d.interceptions.Store(&all)
}

// shrinkStands lets go of the namespaces in which nobody stands any more: of those
// that Workloads are still in after a while, for the sake of what goes on there.
func (d *Datapath) shrinkStands(m *wantedMesh) error {
	var errs []error
	for cookie, s := range d.stands {
		if m.stands[cookie] != nil {
			if err := s.forgo(); err != nil {
				errs = append(errs, err)
			}
			errs = append(errs, d.dropListeners(s, int(s.row.Workers)))
			continue
		}
		if m.near[cookie] && s.ready {
			if s.leaving.IsZero() {
				s.leaving = time.Now()
				s.row.Count = 0 // nothing more is led there
				errs = append(errs, d.tables.stands.put(cookie, s.row))
			}
			if time.Since(s.leaving) < standLinger {
				continue
			}
		}
		errs = append(errs, d.dismantle(s))
	}
	for cookie, row := range d.tables.stands.rows {
		if d.stands[cookie] == nil { // of an agent before us
			errs = append(errs, d.dismantleLost(cookie, row))
		}
	}
	return errors.Join(errs...)
}

// dismantle makes the namespace as it was.
func (d *Datapath) dismantle(s *stand) error {
	err := inOrder(
		func() error {
			row, ok := d.tables.stands.rows[s.cookie]
			if !ok || row.Count == 0 {
				return nil
			}
			row.Count = 0
			return d.tables.stands.put(s.cookie, row)
		},
		func() error { return d.dropListeners(s, 0) },
		func() error { return s.restore(d.tables.stands.rows[s.cookie].Lent != 0) },
	)
	if err != nil {
		return fmt.Errorf("leave namespace %d: %w", s.cookie, err)
	}
	d.unsteer(s.cookie, s.link)
	if err := d.tables.stands.remove(s.cookie); err != nil {
		return err
	}
	delete(d.stands, s.cookie)
	return s.ns.close()
}

// dismantleLost is the same for one that an agent before us stood in.
func (d *Datapath) dismantleLost(cookie uint64, row bpf.MoireStand) error {
	ns, err := lostNamespace(filepath.Join(d.linkDir(), standPinOf(cookie)))
	if err != nil {
		return err
	}
	if ns != nil {
		s := &stand{ns: ns, cookie: cookie, row: row}
		d.stands[cookie] = s
		return d.dismantle(s)
	}
	d.unsteer(cookie, nil)
	return d.tables.stands.remove(cookie)
}

// leaveNamespaces makes the namespaces as they were in which proxies of a node stand,
// whose pins are in dir.
func leaveNamespaces(dir string) error {
	pins, err := filepath.Glob(filepath.Join(dir, "links", standPin+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, pin := range pins {
		cookie, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(pin), standPin), 10, 64)
		if err != nil {
			continue // not one of ours
		}
		ns, err := lostNamespace(pin)
		if err != nil || ns == nil {
			errs = append(errs, err)
			continue
		}
		s := &stand{ns: ns, cookie: cookie}
		errs = append(errs, s.restore(wasLent(dir, cookie)), s.close())
	}
	return errors.Join(errs...)
}

// wasLent: the agent switched something on in the namespace, as a table says.
func wasLent(dir string, cookie uint64) bool {
	tables, err := filepath.Glob(filepath.Join(dir, "layout-*", "stands"))
	if err != nil {
		return false
	}
	for _, path := range tables {
		m, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			continue
		}
		var row bpf.MoireStand
		err = m.Lookup(&cookie, &row)
		m.Close()
		if err == nil && row.Lent != 0 {
			return true
		}
	}
	return false
}

func (d *Datapath) dumpMesh(w io.Writer) {
	t := d.tables
	lines(w, t.proxies.rows, func(k uint64, v bpf.MoireProxy) string { return fmt.Sprintf("proxy %x up=%d", k, v.Up) })
	lines(w, t.groups.rows, func(k, v uint64) string { return fmt.Sprintf("group %d proxy=%x", k, v) })
	lines(w, t.stands.rows, func(k uint64, v bpf.MoireStand) string {
		text := fmt.Sprintf("stand %d proxy=%x workers=%d port=%d lent=%d", k, v.Proxy, v.Workers, v.Port, v.Lent)
		for _, at := range v.At[:v.Count] {
			text += fmt.Sprintf(" vni=%d,ifindex=%d,inside=%d,self=%s,%s", at.Vni, at.Ifindex, at.Inside, ipOf(at.Self[0]), ipOf(at.Self[1]))
		}
		return text
	})
	lines(w, t.frontends.rows, func(k bpf.MoireFrontendKey, _ uint32) string {
		return fmt.Sprintf("frontend %d/%s port=%d project=%x", k.Service.Vni, ipOf(k.Service.Addr), ntohs(k.Service.Port), k.Project)
	})
}
