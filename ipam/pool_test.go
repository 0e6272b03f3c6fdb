package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot"
)

func block(vni snapshot.VNI, cidr string, excluded ...snapshot.Range) snapshot.Block {
	return snapshot.Block{BlockKey: snapshot.BlockKey{VNI: vni, CIDR: netip.MustParsePrefix(cidr)}, Excluded: excluded}
}

func attachment(n int) snapshot.AttachmentKey {
	return snapshot.AttachmentKey{Project: "shop", Workload: fmt.Sprint("w", n), Network: "front"}
}

func mustOpen(t interface{ Fatalf(string, ...any) }, path string) *Pool {
	p, err := OpenPool(path)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return p
}

func TestPool(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool")
	p := mustOpen(t, path)
	blocks := []snapshot.Block{block(7, "10.0.0.0/29", ranges(t, "10.0.0.0-10.0.0.1")...), block(7, "fd00::/126"), block(8, "10.0.0.0/29")}
	take := func(n int, f Families, want ...string) {
		t.Helper()
		got, err := p.Take(attachment(n), 7, blocks, f)
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, a := range got {
			s = append(s, a.String())
		}
		if !slices.Equal(s, want) {
			t.Fatalf("w%d: got %v, want %v", n, s, want)
		}
	}
	take(1, IPv4, "10.0.0.2")
	take(1, IPv4|IPv6, "10.0.0.2", "fd00::") // grows
	take(2, IPv4|IPv6, "10.0.0.3", "fd00::1")
	take(1, IPv6, "fd00::") // shrinks
	for n := 3; n <= 6; n++ {
		take(n, IPv4, fmt.Sprint("10.0.0.", n+1))
	}
	if _, err := p.Take(attachment(9), 7, nil, IPv4); !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	if err := errors.Join(p.Release(attachment(5)), p.Release(attachment(4)), p.Release(attachment(4)), p.Close()); err != nil {
		t.Fatal(err)
	}
	p = mustOpen(t, path) // the order of release survives
	take(10, IPv4, "10.0.0.2")
	take(11, IPv4, "10.0.0.6")
	take(12, IPv4, "10.0.0.5")
	if _, err := p.Take(attachment(13), 7, blocks, IPv4); !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	if err := p.TakeStatic(attachment(14), 7, []netip.Addr{netip.MustParseAddr("10.0.0.5")}); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "shop/w12") {
		t.Fatalf("got %v, want ErrTaken by shop/w12", err)
	}
	static := []netip.Addr{netip.MustParseAddr("10.9.9.9")}
	if err := p.TakeStatic(attachment(12), 7, static); err != nil {
		t.Fatal(err)
	}
	take(15, IPv4, "10.0.0.5")
	held := p.Held()
	i := slices.IndexFunc(held, func(h Held) bool { return h.Key == attachment(12) })
	if !held[i].Static || !slices.Equal(held[i].Addrs, static) {
		t.Fatalf("got %+v, want static %v", held[i], static)
	}
	if _, err := p.Take(attachment(12), 7, blocks, IPv4); !errors.Is(err, ErrExhausted) {
		t.Fatalf("a static address was kept as dynamic: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPoolMAC(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool")
	p := mustOpen(t, path)
	mac := func(n int) string {
		t.Helper()
		m, err := p.MAC(attachment(n), 0x0102)
		if err != nil {
			t.Fatal(err)
		}
		return m.String()
	}
	if _, err := p.MAC(attachment(1), 0); err == nil {
		t.Fatal("a MAC without a node number")
	}
	if a, b := mac(1), mac(1); a != "02:01:02:00:00:01" || a != b {
		t.Fatalf("got %s and %s", a, b)
	}
	if err := errors.Join(p.Release(attachment(1)), p.Close()); err != nil {
		t.Fatal(err)
	}
	p = mustOpen(t, path)
	if m := mac(1); m != "02:01:02:00:00:02" {
		t.Fatalf("got %s, want a MAC never used before", m)
	}
	p.macs = maxMACs
	if _, err := p.MAC(attachment(2), 1); !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	if m := mac(1); m != "02:01:02:00:00:02" {
		t.Fatalf("got %s", m)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPoolOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool")
	p := mustOpen(t, path)
	if _, err := OpenPool(path); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("got %v, want: in use", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Take(attachment(1), 7, []snapshot.Block{block(7, "10.0.0.0/29")}, IPv4); err == nil {
		t.Fatal("a closed pool gave out an address")
	}
}

func TestPoolConcurrent(t *testing.T) {
	p := mustOpen(t, filepath.Join(t.TempDir(), "pool"))
	blocks := []snapshot.Block{block(7, "10.0.0.0/25")}
	var mu sync.Mutex
	seen := map[netip.Addr]int{}
	macs := map[snapshot.MAC]bool{}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 8 {
				k := attachment(w*100 + i)
				got, err := p.Take(k, 7, blocks, IPv4)
				m, errM := p.MAC(k, 1)
				if err := errors.Join(err, errM); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				seen[got[0]]++
				macs[m] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 64 || len(macs) != 64 {
		t.Fatalf("%d addresses and %d MACs for 64 attachments", len(seen), len(macs))
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPoolForgetsOldest(t *testing.T) {
	p := mustOpen(t, filepath.Join(t.TempDir(), "pool"))
	a := netip.MustParseAddr("fd00::")
	for i := range maxFreed + 1 {
		p.free(snapshot.Addr{VNI: 1, IP: a}, uint64(i))
		a = a.Next()
	}
	if len(p.freed) > maxFreed/2+1 {
		t.Fatalf("%d released addresses are remembered", len(p.freed))
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// model is what the pool has promised.
type model struct {
	held map[snapshot.AttachmentKey][]netip.Addr
	macs map[snapshot.AttachmentKey]snapshot.MAC
	used map[snapshot.MAC]snapshot.AttachmentKey
}

func newModel() *model {
	return &model{map[snapshot.AttachmentKey][]netip.Addr{}, map[snapshot.AttachmentKey]snapshot.MAC{}, map[snapshot.MAC]snapshot.AttachmentKey{}}
}

// verify fails when an address or a MAC has two owners, or a promise is broken.
func (m *model) verify(t *rapid.T, p *Pool) {
	seen := map[netip.Addr]snapshot.AttachmentKey{}
	now := map[snapshot.AttachmentKey]Held{}
	for _, h := range p.Held() {
		now[h.Key] = h
		for _, a := range h.Addrs {
			if o, twice := seen[a]; twice {
				t.Fatalf("%s is held by %v and %v", a, o, h.Key)
			}
			seen[a] = h.Key
		}
	}
	for k, addrs := range m.held {
		if !slices.Equal(now[k].Addrs, addrs) {
			t.Fatalf("%v was promised %v, the pool says %v", k, addrs, now[k].Addrs)
		}
	}
	for k, mac := range m.macs {
		if now[k].MAC != mac {
			t.Fatalf("%v was promised %v, the pool says %v", k, mac, now[k].MAC)
		}
	}
}

// flaky is a file that fails or stops in the middle on demand.
type flaky struct {
	*os.File
	next func() int
}

func (f *flaky) Write(b []byte) (int, error) {
	if f.next() == 0 {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, errCrash
	}
	return f.File.Write(b)
}

func (f *flaky) Sync() error {
	switch f.next() {
	case 1:
		return errCrash
	}
	return nil // memory of this process is not lost; no need to wait for a disk
}

func (f *flaky) Truncate(n int64) error {
	if f.next() == 2 {
		return errCrash
	}
	return f.File.Truncate(n)
}

// TestPoolCrash: failing writes, syncs and truncates, and restarts between any
// two operations.
func TestPoolCrash(t *testing.T) {
	dir := t.TempDir()
	count := 0
	rapid.Check(t, func(t *rapid.T) {
		count++
		path := filepath.Join(dir, fmt.Sprint(count))
		faults := rapid.SliceOfN(rapid.IntRange(0, 20), 200, 200).Draw(t, "faults")
		calm := false
		next := func() int {
			if calm || len(faults) == 0 {
				return -1
			}
			f := faults[0]
			faults = faults[1:]
			return f
		}
		open := func(path string) (file, error) {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			return &flaky{f, next}, err
		}
		restart := func(p *Pool) *Pool {
			if p != nil {
				_ = p.Close()
			}
			calm = true
			p, err := openPool(path, open)
			if err != nil {
				t.Fatalf("open: %v", err)
			}
			calm = false
			p.compactAt = min(p.compactAt, rapid.IntRange(1, 20).Draw(t, "compact"))
			return p
		}
		m := newModel()
		p := restart(nil)
		blocks := []snapshot.Block{block(7, "10.0.0.0/29"), block(7, "fd00::/125")}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			step(t, p, m, blocks)
			if p.j.broken != nil || rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				p = restart(p)
			}
			m.verify(t, p)
		}
		p = restart(p)
		m.verify(t, p)
		_ = p.Close()
	})
}

// step does one random thing and notes what was promised.
func step(t *rapid.T, p *Pool, m *model, blocks []snapshot.Block) {
	k := attachment(rapid.IntRange(0, 9).Draw(t, "key"))
	switch rapid.IntRange(0, 4).Draw(t, "op") {
	case 0:
		mac := m.macs[k]
		delete(m.held, k) // unknown until it is acknowledged
		delete(m.macs, k)
		if p.Release(k) == nil {
			m.held[k] = nil
			m.used[mac] = snapshot.AttachmentKey{Workload: "released for ever"}
		}
	case 1:
		static := []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 9).Draw(t, "static"))})}
		old := m.held[k]
		delete(m.held, k)
		if err := p.TakeStatic(k, 7, static); err == nil {
			m.held[k] = static
		} else if errors.Is(err, ErrTaken) && old != nil {
			m.held[k] = old
		}
	case 2:
		mac, err := p.MAC(k, 5)
		if err != nil {
			return
		}
		if had, ok := m.macs[k]; ok && had != mac {
			t.Fatalf("%v had %v and got %v", k, had, mac)
		}
		if o, ok := m.used[mac]; ok && o != k {
			t.Fatalf("%v got %v, which %v had", k, mac, o)
		}
		m.macs[k], m.used[mac] = mac, k
	default:
		old := m.held[k]
		delete(m.held, k)
		got, err := p.Take(k, 7, blocks, Families(rapid.IntRange(1, 3).Draw(t, "families")))
		if err == nil {
			m.held[k] = got
		} else if errors.Is(err, ErrExhausted) && old != nil {
			m.held[k] = old
		}
	}
}
