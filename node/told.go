package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"moire.dev/moire/datapath"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Bounds of what is learned.
const (
	// A name whose TTL is shorter is allowed for that long.
	leastTTL = time.Second
	// graceTTL: between the answer and the first packet.
	graceTTL = 2 * time.Second
	// maxTold addresses of one Workload; then the one that ends first goes.
	maxTold = 1024
	// aliveFor is how long an address stays that a session was seen to.
	aliveFor = 2 * time.Second
)

// asker is a Workload in one Network.
type asker struct {
	VNI               snapshot.VNI
	Project, Workload string
}

// told is one address under one name.
type told struct {
	name string
	addr netip.Addr
}

// watched is a Workload that has Policies by name.
type watched struct {
	asker    asker
	patterns []string
}

// learned is the addresses that the name service told Workloads whose Policies
// name names. It puts them into the policy sets in the place of the names, and
// lets an answer out only when the kernel has them.
type learned struct {
	log  *slog.Logger
	stir func() // make the loop apply again
	keep *toldFile

	byAddr atomic.Pointer[map[snapshot.Addr]watched]

	mu      sync.Mutex
	until   map[asker]map[told]time.Time
	change  uint64        // raised when what a set resolves to may be different
	applied uint64        // change that the kernel has
	news    chan struct{} // closed when applied was raised
	last    resolved
}

// resolved remembers the last result: an equal State must be the same State.
type resolved struct {
	from, to *snapshot.Snapshot
	change   uint64
}

func newLearned(log *slog.Logger, keep *toldFile, stir func()) *learned {
	l := &learned{log: log, stir: stir, keep: keep, until: map[asker]map[told]time.Time{}, news: make(chan struct{}), change: 1}
	l.byAddr.Store(&map[snapshot.Addr]watched{})
	// Whose time is over stays if a session goes on: expire looks.
	for _, e := range keep.load(log) {
		l.put(e.asker, e.told, e.until)
	}
	return l
}

// Watched: a Policy of the Workload at the address names names.
func (l *learned) Watched(client snapshot.Addr) bool {
	_, ok := (*l.byAddr.Load())[client]
	return ok
}

// Wants: one of its Policies names this one.
func (l *learned) Wants(client snapshot.Addr, name string) bool {
	w := (*l.byAddr.Load())[client]
	return slices.ContainsFunc(w.patterns, func(p string) bool { return policy.MatchName(p, name) })
}

// Told returns when the kernel lets the Workload reach the addresses.
func (l *learned) Told(ctx context.Context, client snapshot.Addr, name string, addrs []netip.Addr, ttl time.Duration) error {
	w, ok := (*l.byAddr.Load())[client]
	if !ok {
		return nil // its Policies changed meanwhile
	}
	l.mu.Lock()
	until := time.Now().Add(max(ttl, leastTTL) + graceTTL)
	var fresh []kept
	for _, a := range addrs {
		t := told{name, a.Unmap()}
		if l.put(w.asker, t, until) {
			l.change++
		}
		fresh = append(fresh, kept{w.asker, t, until})
	}
	need, applied := l.change, l.applied
	l.keep.add(l.log, fresh, l.all)
	l.mu.Unlock()
	if need == applied {
		return nil
	}
	l.stir()
	for {
		l.mu.Lock()
		done, news := l.applied >= need, l.news
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return errors.New("the kernel did not take the addresses in time")
		}
	}
}

// put remembers an address for at least so long, and says whether it is new.
func (l *learned) put(who asker, t told, until time.Time) (fresh bool) {
	have := l.until[who]
	if have == nil {
		have = map[told]time.Time{}
		l.until[who] = have
	}
	old, ok := have[t]
	if until.After(old) {
		have[t] = until
	}
	for len(have) > maxTold {
		first := t
		for o, u := range have {
			if u.Before(have[first]) || u.Equal(have[first]) && o != t {
				first = o
			}
		}
		delete(have, first)
	}
	return !ok
}

// all lists everything, for the file; the caller has the lock.
func (l *learned) all() []kept {
	var out []kept
	for who, have := range l.until {
		for t, until := range have {
			out = append(out, kept{who, t, until})
		}
	}
	return out
}

// resolve puts addresses in the place of names, and says as of which change.
// Without names it returns the Snapshot that it was given.
func (l *learned) resolve(s State) (*snapshot.Snapshot, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last.from == s.Snapshot && l.last.change == l.change {
		return l.last.to, l.change
	}
	who := map[snapshot.PolicyKey][]asker{}
	byAddr := map[snapshot.Addr]watched{}
	var policies map[snapshot.PolicyKey]policy.Set
	for _, loc := range s.Locals {
		for _, ip := range loc.Addrs {
			a := snapshot.Addr{VNI: loc.VNI, IP: ip.Unmap()}
			e, ok := s.Snapshot.Endpoints[a]
			if !ok {
				continue
			}
			as := asker{loc.VNI, e.Project, e.Workload}
			for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
				k := snapshot.PolicyKey{VNI: loc.VNI, Identity: e.Identity, Direction: d}
				set := s.Snapshot.Policies[k]
				names := set.Named()
				if len(names) == 0 {
					continue
				}
				if !slices.Contains(who[k], as) {
					who[k] = append(who[k], as)
				}
				byAddr[a] = watched{as, append(byAddr[a].patterns, names...)}
			}
		}
	}
	for k, set := range s.Snapshot.Policies {
		if len(set.Named()) == 0 {
			continue
		}
		if policies == nil {
			policies = maps.Clone(s.Snapshot.Policies)
		}
		policies[k] = set.Resolve(func(pattern string) []netip.Addr { return l.addresses(who[k], pattern) })
	}
	l.byAddr.Store(&byAddr)
	l.last = resolved{from: s.Snapshot, to: s.Snapshot, change: l.change}
	if policies != nil {
		out := *s.Snapshot
		out.Policies = policies
		l.last.to = &out
	}
	return l.last.to, l.change
}

// addresses that any of the Workloads was told under a name that matches.
func (l *learned) addresses(who []asker, pattern string) []netip.Addr {
	var out []netip.Addr
	for _, w := range who {
		for t := range l.until[w] {
			if policy.MatchName(pattern, t.name) {
				out = append(out, t.addr)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// confirm: the kernel has everything up to that change.
func (l *learned) confirm(change uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if change > l.applied {
		l.applied = change
		close(l.news)
		l.news = make(chan struct{})
	}
}

// leave forgets what Workloads were told that are gone.
func (l *learned) leave(s State) {
	here := map[asker]bool{}
	for _, loc := range s.Locals {
		here[asker{loc.VNI, loc.Key.Project, loc.Key.Workload}] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for who := range l.until {
		if !here[who] {
			delete(l.until, who)
			l.change++
		}
	}
}

// expire forgets the addresses whose time is over and that nobody talks to;
// alive lists the pairs of addresses that do.
func (l *learned) expire(alive func(peers map[snapshot.Addr]bool) (map[datapath.Pair]bool, error)) error {
	now := time.Now()
	l.mu.Lock()
	peers := map[snapshot.Addr]bool{}
	for who, have := range l.until {
		for t, until := range have {
			if until.Before(now) {
				peers[snapshot.Addr{VNI: who.VNI, IP: t.addr}] = true
			}
		}
	}
	l.mu.Unlock()
	if len(peers) == 0 {
		return nil
	}
	pairs, err := alive(peers)
	if err != nil {
		return fmt.Errorf("which addresses of names are in use: %w", err)
	}
	own := map[asker][]netip.Addr{}
	for a, w := range *l.byAddr.Load() {
		own[w.asker] = append(own[w.asker], a.IP)
	}
	l.mu.Lock()
	gone := 0
	for who, have := range l.until {
		for t, until := range have {
			if !until.Before(now) {
				continue
			}
			if slices.ContainsFunc(own[who], func(c netip.Addr) bool { return pairs[datapath.PairOf(who.VNI, c, t.addr)] }) {
				have[t] = now.Add(aliveFor)
				continue
			}
			delete(have, t)
			gone++
		}
		if len(have) == 0 {
			delete(l.until, who)
		}
	}
	if gone > 0 {
		l.change++
		l.keep.add(l.log, nil, l.all)
	}
	l.mu.Unlock()
	if gone > 0 {
		l.stir()
	}
	return nil
}
