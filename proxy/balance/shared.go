package balance

import (
	"fmt"
	"sync"
	"sync/atomic"

	"moire.dev/moire/snapshot/l7"
)

// Shared is what all workers know about the endpoints of one cluster. It lives
// as long as the cluster's name does.
type Shared struct {
	// version grows with every change of who may be chosen.
	version atomic.Uint64
	// ejected now, of size endpoints. A place is taken here before a host is ejected.
	ejected, size atomic.Int32
	// judging: the newest configuration has an Outlier. An older one that is
	// still in use must eject nobody, for nobody would bring him back.
	judging atomic.Bool

	// mu is for those who change the configuration, Tick, and Status; no worker
	// takes it while it serves.
	mu    sync.Mutex
	hosts map[string]*host
	plan  *Plan
	// swept is when the last interval of the outlier judgement ended.
	swept int64
}

// NewShared is a Shared that knows nobody.
func NewShared() *Shared {
	s := &Shared{hosts: map[string]*host{}}
	s.version.Store(1)
	return s
}

// host is an endpoint by address.
type host struct {
	address string
	flags   atomic.Uint32
	// since is the begin of slow start: when it joined, became well, or returned.
	since atomic.Int64

	// Outlier: failures in a row, seen by all workers.
	errors, gateways atomic.Uint32
	// until an ejection ends; 0: not ejected, or about to be.
	until atomic.Int64
	// backoff is how many times the base an ejection lasts; grows with ejections,
	// shrinks with intervals without.
	backoff, times atomic.Uint32
	reason         atomic.Uint32

	// Under Shared.mu: one local for each worker; when it returned; what the last
	// whole interval counted.
	locals   []*local
	returned int64
	last     tally
}

// Flags of a host.
const (
	unwell  uint32 = 1 << iota // an active check says so, or has not yet answered
	ejected                    // outlier
	gone                       // no longer in the configuration
	asked                      // an active check has answered
)

func (h *host) usable() bool { return h.flags.Load()&(unwell|ejected) == 0 }

// set sets and clears flags, and says what they were.
func (h *host) set(on, off uint32) uint32 {
	for {
		old := h.flags.Load()
		if h.flags.CompareAndSwap(old, old&^off|on) {
			return old
		}
	}
}

// local is what one worker knows of one endpoint. The atomic part is written
// by the worker and emptied by Tick; the rest is the worker's alone.
type local struct {
	pending int32
	cost    float64 // Peak EWMA, nanoseconds
	stamp   int64   // when cost was brought up to date
	good    float64 // the last answer that was none of an error
	counts  atomic.Uint64
	answers atomic.Uint64
	latency atomic.Int64
	host    *host
}

// Build makes the Plan of a configuration. Endpoints that stay, by address, keep
// their health, ejection and history; new ones begin their slow start at now,
// and are unwell until the first active check has answered when the cluster has
// one. Subsets are all selectors that rules use; Plan.Subset numbers them.
func (s *Shared) Build(c *l7.Cluster, subsets []map[string]string, now int64) (*Plan, error) {
	p, err := newPlan(c, subsets)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.shared = s
	s.judging.Store(p.outlier != nil)
	hosts := make(map[string]*host, len(p.addresses))
	for i, address := range p.addresses {
		h := hosts[address]
		if h == nil {
			h = s.hosts[address]
		}
		if h == nil {
			h = &host{address: address}
			h.since.Store(now)
			if c.Check != nil {
				h.flags.Store(unwell)
			}
		}
		if c.Check == nil {
			h.set(0, unwell|asked)
		}
		hosts[address] = h
		p.hosts[i] = h
	}
	for address, h := range s.hosts {
		if hosts[address] == nil {
			h.set(gone, 0)
			s.release(h)
		} else if p.outlier == nil {
			s.release(h)
		}
	}
	if s.plan == nil {
		s.swept = now
	}
	s.hosts, s.plan = hosts, p
	s.size.Store(int32(len(hosts)))
	s.version.Add(1)
	return p, nil
}

// SetHealth is what an active check says about an endpoint. It says whether that
// is new; a first answer is always new. Unknown addresses are none of ours.
func (s *Shared) SetHealth(address string, well bool, now int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[address]
	if h == nil || s.plan.unchecked {
		return false
	}
	on, off := asked, unwell
	if !well {
		on, off = asked|unwell, 0
	}
	old := h.set(on, off)
	if old&asked != 0 && old&unwell == on&unwell {
		return false
	}
	if well && old&unwell != 0 {
		h.since.Store(now)
	}
	s.version.Add(1)
	return true
}

// Status is one endpoint as an administrator sees it.
type Status struct {
	Address string
	// Well by the active check; true without one.
	Well bool
	// Ejected, why, and until when; how many times so far.
	Ejected bool
	Reason  Reason
	Until   int64
	Times   uint32
	// Requests, Failures and mean Latency (nanoseconds, only with a LatencyFactor)
	// in the last whole interval of the outlier judgement.
	Requests, Failures uint64
	Latency            float64
}

// Quiet says that every endpoint is well and none is ejected, as far as is known.
func (s *Shared) Quiet() bool {
	if s.ejected.Load() > 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan == nil || s.plan.unchecked
}

// Status of all endpoints, in the order of the configuration.
func (s *Shared) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan == nil {
		return nil
	}
	all := make([]Status, 0, len(s.plan.hosts))
	for _, h := range s.plan.hosts {
		f := h.flags.Load()
		st := Status{Address: h.address, Well: f&unwell == 0, Ejected: f&ejected != 0, Times: h.times.Load(),
			Requests: h.last.total, Failures: h.last.failed, Latency: h.last.mean()}
		if st.Ejected {
			st.Reason, st.Until = Reason(h.reason.Load()), h.until.Load()
		}
		all = append(all, st)
	}
	return all
}
