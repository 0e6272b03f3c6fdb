package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"

	"moire.dev/moire/snapshot"
)

// Families says which address families an attachment wants.
type Families uint8

// The families; combine them with |.
const (
	IPv4 Families = 1 << iota
	IPv6
)

func familyOf(a netip.Addr) Families {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Held is what one attachment holds.
type Held struct {
	Key    snapshot.AttachmentKey
	VNI    snapshot.VNI
	Addrs  []netip.Addr // sorted
	Static bool         // given by TakeStatic
	MAC    snapshot.MAC // zero: none yet
}

// maxMACs is how many MACs one node can give out: 24 bits.
const maxMACs = 1<<24 - 1

// maxFreed bounds how many released addresses are remembered in order.
const maxFreed = 1 << 16

// Pool gives out the addresses and MACs of one node from its blocks. It
// remembers everything in one file and needs nobody else. Safe for concurrent
// use.
type Pool struct {
	mu   sync.Mutex
	lock *os.File
	j    *journal

	held  map[snapshot.AttachmentKey]*Held
	owner map[snapshot.Addr]snapshot.AttachmentKey
	freed map[snapshot.Addr]uint64 // when it was released, by clock
	clock uint64
	macs  uint32
	// compactAt is the number of lines at which compaction is tried next.
	compactAt int
}

// OpenPool opens or creates the memory at path. Only one Pool can have a path
// open. An append that a crash cut short is dropped: nobody was told of it.
// Damage to anything older is ErrDamaged.
func OpenPool(path string) (*Pool, error) { return openPool(path, openFile) }

func openPool(path string, open func(string) (file, error)) (*Pool, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the address pool: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("the address pool %s is in use by another process; stop the other agent of this node: %w", path, err), lock.Close())
	}
	p := &Pool{
		lock:  lock,
		held:  map[snapshot.AttachmentKey]*Held{},
		owner: map[snapshot.Addr]snapshot.AttachmentKey{},
		freed: map[snapshot.Addr]uint64{},
	}
	if p.j, err = openJournal(path, open, p.apply); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	p.plan()
	return p, nil
}

// Close gives the file back. Nothing is lost without it.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.j.broken = errors.New("the pool is closed")
	return errors.Join(p.j.f.Close(), p.lock.Close())
}

// Take returns the addresses of an attachment, one for each of families. What
// the key already holds in the Network stays; what is missing comes from
// blocks of that VNI, first addresses never used, then the one that is free
// for longest. It is durable on return. Errors wrap ErrExhausted when the
// blocks have no free address of a family; then nothing has changed.
func (p *Pool) Take(key snapshot.AttachmentKey, vni snapshot.VNI, blocks []snapshot.Block, families Families) ([]netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := Held{Key: key, VNI: vni}
	if old := p.held[key]; old != nil {
		next.MAC = old.MAC
		if old.VNI == vni && !old.Static {
			for _, a := range old.Addrs {
				if families&familyOf(a) != 0 {
					next.Addrs = append(next.Addrs, a)
				}
			}
		}
	}
	for _, f := range []Families{IPv4, IPv6} {
		if families&f == 0 || slices.ContainsFunc(next.Addrs, func(a netip.Addr) bool { return familyOf(a) == f }) {
			continue
		}
		a, err := p.pick(vni, blocks, f)
		if err != nil {
			return nil, fmt.Errorf("cannot give %s an address: %w", name(key), err)
		}
		next.Addrs = append(next.Addrs, a)
	}
	if err := p.put(next); err != nil {
		return nil, err
	}
	return slices.Clone(next.Addrs), nil
}

// TakeStatic notes that the key holds exactly addrs, wherever they come from.
// It is durable on return. Errors wrap ErrTaken when another key holds one.
func (p *Pool) TakeStatic(key snapshot.AttachmentKey, vni snapshot.VNI, addrs []netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range addrs {
		if other, ok := p.owner[snapshot.Addr{VNI: vni, IP: a.Unmap()}]; ok && other != key {
			return fmt.Errorf("cannot give %s the address %s: %w by %s; detach that one or choose another address", name(key), a, ErrTaken, name(other))
		}
	}
	next := Held{Key: key, VNI: vni, Static: true}
	for _, a := range addrs {
		next.Addrs = append(next.Addrs, a.Unmap())
	}
	slices.SortFunc(next.Addrs, netip.Addr.Compare)
	next.Addrs = slices.Compact(next.Addrs)
	if old := p.held[key]; old != nil {
		next.MAC = old.MAC
	}
	return p.put(next)
}

// MAC returns the MAC of the key, 02:<node number>:<count>, and makes one if it
// has none. A MAC is never used again, even after Release.
func (p *Pool) MAC(key snapshot.AttachmentKey, nodeNumber uint16) (snapshot.MAC, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := Held{Key: key}
	if old := p.held[key]; old != nil {
		if old.MAC != (snapshot.MAC{}) {
			return old.MAC, nil
		}
		next = *old
	}
	if nodeNumber == 0 {
		return snapshot.MAC{}, fmt.Errorf("cannot give %s a MAC address: this node has no number yet; it gets one when the control plane knows it", name(key))
	}
	if p.macs >= maxMACs {
		return snapshot.MAC{}, fmt.Errorf("cannot give %s a MAC address: %w: this node has used all %d; let it join under a new name", name(key), ErrExhausted, maxMACs)
	}
	n := p.macs + 1
	next.MAC = snapshot.MAC{0x02, byte(nodeNumber >> 8), byte(nodeNumber), byte(n >> 16), byte(n >> 8), byte(n)}
	if err := p.write(entryOf(next, p.clock+1, n)); err != nil {
		// The line may be on disk after all; never give this one out again.
		p.macs = n
		return snapshot.MAC{}, err
	}
	return next.MAC, nil
}

// Release takes back everything that the key holds. It is durable on return.
func (p *Pool) Release(key snapshot.AttachmentKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[key] == nil {
		return nil
	}
	return p.write(entry{Key: &key, Gone: true, Clock: p.clock + 1, MACs: p.macs})
}

// Held lists what is held, sorted by key.
func (p *Pool) Held() []Held {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Held, 0, len(p.held))
	for _, h := range p.held {
		c := *h
		c.Addrs = slices.Clone(h.Addrs)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Held) int { return a.Key.Compare(b.Key) })
	return out
}

// pick finds a free address without taking it.
func (p *Pool) pick(vni snapshot.VNI, blocks []snapshot.Block, f Families) (netip.Addr, error) {
	best, when, seen := netip.Addr{}, uint64(0), 0
	for _, b := range blocks {
		if b.VNI != vni || familyOf(b.CIDR.Addr()) != f {
			continue
		}
		seen++
		for a := b.CIDR.Masked().Addr(); a.IsValid() && b.CIDR.Contains(a); a = a.Next() {
			if last, ok := excluding(b.Excluded, a); ok {
				a = last
				continue
			}
			at := snapshot.Addr{VNI: vni, IP: a}
			if _, taken := p.owner[at]; taken {
				continue
			}
			released, used := p.freed[at]
			if !used {
				return a, nil
			}
			if !best.IsValid() || released < when {
				best, when = a, released
			}
		}
	}
	if !best.IsValid() {
		return best, fmt.Errorf("%w: no free %s address in the %d blocks that this node has of network %d", ErrExhausted, [...]string{"", "IPv4", "IPv6"}[f], seen, vni)
	}
	return best, nil
}

// excluding returns the end of the range that holds a.
func excluding(ranges []snapshot.Range, a netip.Addr) (netip.Addr, bool) {
	for _, r := range ranges {
		if !a.Less(r.First) && !r.Last.Less(a) {
			return r.Last, true
		}
	}
	return netip.Addr{}, false
}

// put makes next durable, if it is any change.
func (p *Pool) put(next Held) error {
	if old := p.held[next.Key]; old != nil && old.VNI == next.VNI && old.Static == next.Static && slices.Equal(old.Addrs, next.Addrs) {
		return nil
	}
	return p.write(entryOf(next, p.clock+1, p.macs))
}

func entryOf(h Held, clock uint64, macs uint32) entry {
	e := entry{Key: &h.Key, VNI: h.VNI, Addrs: h.Addrs, Static: h.Static, Clock: clock, MACs: macs}
	if h.MAC != (snapshot.MAC{}) {
		e.MAC = h.MAC.String()
	}
	return e
}

func (p *Pool) write(e entry) error {
	if err := p.j.append(e); err != nil {
		return err
	}
	p.apply(e)
	if p.j.lines >= p.compactAt {
		// When it fails, the old journal is still good (or refuses by itself).
		_ = p.j.replace(p.entries())
		p.plan()
	}
	return nil
}

// plan sets when to compact next: when most lines are history.
func (p *Pool) plan() {
	p.compactAt = 2*max(p.j.lines, len(p.held)+len(p.freed)) + 1024
}

// apply is the only place that changes what is held; replay and write share it.
func (p *Pool) apply(e entry) {
	p.clock = max(p.clock, e.Clock)
	p.macs = max(p.macs, e.MACs)
	if e.Free.IsValid() {
		p.freed[snapshot.Addr{VNI: e.VNI, IP: e.Free}] = e.Clock
	}
	if e.Key == nil {
		return
	}
	if old := p.held[*e.Key]; old != nil {
		for _, a := range old.Addrs {
			delete(p.owner, snapshot.Addr{VNI: old.VNI, IP: a})
			p.free(snapshot.Addr{VNI: old.VNI, IP: a}, e.Clock)
		}
		delete(p.held, *e.Key)
	}
	if e.Gone {
		return
	}
	h := &Held{Key: *e.Key, VNI: e.VNI, Addrs: slices.Clone(e.Addrs), Static: e.Static}
	if mac, err := snapshot.ParseMAC(e.MAC); err == nil {
		h.MAC = mac
	}
	p.held[h.Key] = h
	for _, a := range h.Addrs {
		at := snapshot.Addr{VNI: h.VNI, IP: a}
		p.owner[at] = h.Key
		delete(p.freed, at)
	}
}

// free notes when an address was released, and forgets the older half when
// there are too many: those count as never used then, and are first in any
// case.
func (p *Pool) free(at snapshot.Addr, clock uint64) {
	p.freed[at] = clock
	if len(p.freed) <= maxFreed {
		return
	}
	clocks := make([]uint64, 0, len(p.freed))
	for _, c := range p.freed {
		clocks = append(clocks, c)
	}
	slices.Sort(clocks)
	middle := clocks[len(clocks)/2]
	for a, c := range p.freed {
		if c < middle {
			delete(p.freed, a)
		}
	}
}

// entries is everything as journal lines, in a fixed order.
func (p *Pool) entries() []entry {
	out := []entry{{Clock: p.clock, MACs: p.macs}}
	for at, clock := range p.freed {
		out = append(out, entry{VNI: at.VNI, Free: at.IP, Clock: clock})
	}
	slices.SortFunc(out[1:], func(a, b entry) int {
		return snapshot.Addr{VNI: a.VNI, IP: a.Free}.Compare(snapshot.Addr{VNI: b.VNI, IP: b.Free})
	})
	held := make([]entry, 0, len(p.held))
	for _, h := range p.held {
		held = append(held, entryOf(*h, 0, 0))
	}
	slices.SortFunc(held, func(a, b entry) int { return a.Key.Compare(*b.Key) })
	return append(out, held...)
}

// name is how messages call an attachment.
func name(k snapshot.AttachmentKey) string {
	return fmt.Sprintf("Workload %s/%s in Network %s", k.Project, k.Workload, k.Network)
}
