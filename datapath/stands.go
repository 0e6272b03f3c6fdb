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
	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
)

// standLinger is how long a proxy may go on with what it has in a namespace in
// which it is no longer needed.
const standLinger = 30 * time.Second

// standIn finds the stand of the namespace at a path, or makes one, which does
// nothing yet. nil: there is none, as the namespace is gone, or nobody wants one.
func (d *Datapath) standIn(path string, wanted bool) (*stand, error) {
	ns, err := openNamespace(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errNoNamespace) || errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if s := d.standsAt[ns.ino]; s != nil {
		return s, ns.close()
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
	d.stands[cookie], d.standsAt[ns.ino] = s, s
	return s, nil
}

// growStands makes every namespace ready in which a proxy stands. The row comes
// last: then connections are led to the proxy. What cannot be made ready is told, and
// is nobody else's trouble: who is root in a namespace can spoil it for itself.
func (d *Datapath) growStands(m *wantedMesh, verify bool) {
	for _, cookie := range slices.Sorted(maps.Keys(m.stands)) {
		want, s := m.stands[cookie], d.stands[cookie]
		was := s.failure
		s.failure = ""
		if err := d.growStand(s, want, verify || was != ""); err != nil {
			s.failure = err.Error()
		}
		if s.failure != was && s.failure != "" {
			d.cfg.Log.Warn("a namespace is not ready for its proxy", "workload", want.keys[0].Project+"/"+want.keys[0].Workload, "error", s.failure)
		}
	}
	d.intercept(m)
}

func (d *Datapath) growStand(s *stand, want *wantedStand, verify bool) error {
	if want.problem != nil {
		return want.problem
	}
	row, had := want.row, d.tables.stands.rows[s.cookie]
	row.Port, row.Lent = cmp.Or(s.row.Port, had.Port), cmp.Or(s.row.Lent, had.Lent)
	s.leaving = time.Time{}
	if s.ready && row == s.row && row == had && !verify {
		return nil
	}
	if err := inOrder(d.stepsOf(s, &row)...); err != nil {
		return err
	}
	s.row, s.ready = row, true
	return nil
}

// stepsOf making a namespace ready: whoever dies between two of them leaves nothing
// that the next agent does not find.
func (d *Datapath) stepsOf(s *stand, row *bpf.MoireStand) []func() error {
	return []func() error{
		func() error { return d.steer(s) },
		func() error { return d.lend(s, row) },
		func() error { return s.lead(row, &d.writes) },
		func() error { return d.listen(s, row) },
		func() error { return d.tables.stands.put(s.cookie, *row) },
	}
}

// lend switches on what makes the Workload's answers to a proxy bear its mark. The row
// says what was off before, and says so first.
func (d *Datapath) lend(s *stand, row *bpf.MoireStand) error {
	if !s.ready {
		row.Lent |= wasLent(d.cfg.dir(), s.cookie) // by an agent with other tables
	}
	for i, path := range lentSettings {
		value, err := s.setting(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return err
		}
		if value == "1" {
			continue
		}
		if bit := uint32(1) << i; row.Lent&bit == 0 {
			row.Lent |= bit
			had := d.tables.stands.rows[s.cookie]
			had.Lent = row.Lent
			if err := d.tables.stands.put(s.cookie, had); err != nil {
				return err
			}
		} else if s.ready {
			d.writes.found("mesh", "was switched off,", path)
		}
		if err := s.set(path, "1"); err != nil {
			return err
		}
	}
	return nil
}

// intercept tells what the proxies need.
func (d *Datapath) intercept(m *wantedMesh) {
	var all []Interception
	for _, cookie := range slices.Sorted(maps.Keys(m.stands)) {
		s, want := d.stands[cookie], m.stands[cookie]
		i := Interception{
			Namespace: strconv.FormatUint(cookie, 10), Proxy: want.proxy, Interfaces: want.keys, Netns: int(s.ns.file.Fd()), Error: s.failure,
		}
		if s.failure == "" {
			i.Outbound, i.Inbound = slices.Clone(s.listeners[listensOut]), slices.Clone(s.listeners[listensIn])
		}
		all = append(all, i)
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
				d.cfg.Log.Warn("a namespace is not tidy", "cookie", cookie, "error", err)
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
			if time.Since(s.leaving) < d.standLinger {
				continue
			}
		}
		errs = append(errs, d.dismantle(s))
	}
	lost, err := d.lostStands()
	errs = append(errs, err)
	for _, cookie := range lost {
		errs = append(errs, d.dismantleLost(cookie))
	}
	return errors.Join(errs...)
}

// lostStands are those of an agent before us that nobody wants.
func (d *Datapath) lostStands() ([]uint64, error) {
	if d.cfg.Ephemeral {
		return nil, nil
	}
	lost := map[uint64]bool{}
	for cookie := range d.tables.stands.rows {
		lost[cookie] = true
	}
	pins, err := os.ReadDir(d.linkDir())
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	for _, pin := range pins {
		if cookie, ok := cookieOf(pin.Name()); ok {
			lost[cookie] = true
		}
	}
	for cookie := range d.stands {
		delete(lost, cookie)
	}
	return slices.Sorted(maps.Keys(lost)), nil
}

// cookieOf the namespace that a pin is about.
func cookieOf(pin string) (cookie uint64, ok bool) {
	number, ok := strings.CutPrefix(pin, standPin)
	cookie, err := strconv.ParseUint(number, 10, 64)
	return cookie, ok && err == nil
}

// dismantle makes the namespace as it was, as far as its Workload lets us.
func (d *Datapath) dismantle(s *stand) error {
	row, ours := d.tables.stands.rows[s.cookie]
	if ours && row.Count != 0 {
		row.Count = 0
		if err := d.tables.stands.put(s.cookie, row); err != nil {
			return err
		}
	}
	if err := d.dropListeners(s, 0); err != nil {
		return err
	}
	if err := s.restore(row.Lent); err != nil {
		d.cfg.Log.Warn("a namespace is not as it was before its proxy came", "cookie", s.cookie, "error", err)
	}
	d.unsteer(s.cookie, s.link)
	if err := d.tables.stands.remove(s.cookie); err != nil {
		return err
	}
	delete(d.stands, s.cookie)
	delete(d.standsAt, s.ns.ino)
	return s.ns.close()
}

// dismantleLost is the same for one that an agent before us stood in.
func (d *Datapath) dismantleLost(cookie uint64) error {
	ns, err := lostNamespace(filepath.Join(d.linkDir(), standPinOf(cookie)))
	if err != nil {
		return err
	}
	if ns != nil {
		s := &stand{ns: ns, cookie: cookie}
		d.stands[cookie], d.standsAt[ns.ino] = s, s
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
		cookie, ok := cookieOf(filepath.Base(pin))
		if !ok {
			continue
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

// wasLent is what was switched on in the namespace, as the tables in dir say.
func wasLent(dir string, cookie uint64) (lent uint32) {
	tables, err := filepath.Glob(filepath.Join(dir, "layout-*", "stands"))
	if err != nil {
		return 0
	}
	for _, path := range tables {
		m, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			continue
		}
		var row bpf.MoireStand
		if err := m.Lookup(&cookie, &row); err == nil {
			lent |= row.Lent
		}
		m.Close()
	}
	return lent
}

func (d *Datapath) dumpMesh(w io.Writer) {
	t := d.tables
	lines(w, t.proxies.rows, func(k uint64, v bpf.MoireProxy) string { return fmt.Sprintf("proxy %x up=%d", k, v.Up) })
	lines(w, t.groups.rows, func(k, v uint64) string { return fmt.Sprintf("group %d proxy=%x", k, v) })
	lines(w, t.stands.rows, func(k uint64, v bpf.MoireStand) string {
		text := fmt.Sprintf("stand %d proxy=%x workers=%d port=%d lent=%d", k, v.Proxy, v.Workers, v.Port, v.Lent)
		if v.Gate != 0 {
			text += fmt.Sprintf(" doors=%v", v.Door[:v.Doors])
		}
		for _, at := range v.At[:v.Count] {
			text += fmt.Sprintf(" vni=%d,ifindex=%d,inside=%d,self=%s,%s", at.Vni, at.Ifindex, at.Inside, ipOf(at.Self[0]), ipOf(at.Self[1]))
		}
		return text
	})
	lines(w, t.frontends.rows, func(k bpf.MoireFrontendKey, _ uint32) string {
		return fmt.Sprintf("frontend %d/%s port=%d project=%x", k.Service.Vni, ipOf(k.Service.Addr), ntohs(k.Service.Port), k.Project)
	})
}
