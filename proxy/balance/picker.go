package balance

// Picker is one worker's choice among the endpoints of a Plan. Only that worker
// may use it. A request ends with the Picker that it began with, also when the
// configuration was changed in between; both see the same history.
type Picker struct {
	plan   *Plan
	locals []*local
	views  []view
	// gaps are 1/weight now, by index: slow start included.
	gaps []float64
	// Memory for a refresh.
	weights   []float64
	low, high []int32
	deadlines []float64
	healths   []health
	shares    []share
}

// view is one subset as it is now.
type view struct {
	subset  *subset
	version uint64 // of Shared, that it is from
	expires int64  // when slow start changes it
	levels  []choice
	only    int    // the level that gets all; -1: several do
	may     []bool // by index; for ring and table
}

// choice is one level as it is now.
type choice struct {
	until int     // of 100: below that, and not below the level before, it is this
	live  []int32 // who may be chosen
	equal bool    // all live have one weight
	turn  uint32  // of a round robin of equals
	alias alias
	edf   schedule
}

// Picker for a worker; workers are numbered from 0. What it knew of endpoints
// that stay is kept. It may be made beside a running worker and handed to it.
func (p *Plan) Picker(worker int) *Picker {
	n := p.Len()
	k := &Picker{plan: p, locals: make([]*local, n), views: make([]view, len(p.subsets)), gaps: make([]float64, n)}
	p.shared.mu.Lock()
	for i, h := range p.hosts {
		k.locals[i] = h.local(worker)
	}
	p.shared.mu.Unlock()
	widest, deepest := 0, 0
	for i := range p.subsets {
		s := &p.subsets[i]
		v := &k.views[i]
		v.subset, v.levels = s, make([]choice, len(s.levels))
		deepest = max(deepest, len(s.levels))
		if p.method.hashes() {
			v.may = make([]bool, n)
		}
		for j := range s.levels {
			w := len(s.levels[j].members)
			widest = max(widest, w)
			c := &v.levels[j]
			c.live = make([]int32, 0, w)
			c.alias.room(w)
			if p.method == roundRobin {
				c.edf.heap = make([]turn, 0, w)
			}
		}
	}
	k.weights = make([]float64, widest)
	k.low, k.high = make([]int32, widest), make([]int32, widest)
	k.healths, k.shares = make([]health, deepest), make([]share, deepest)
	if p.method == roundRobin {
		k.deadlines = make([]float64, n)
	}
	return k
}

// local of a worker; made when there is none. Shared.mu is held.
func (h *host) local(worker int) *local {
	for len(h.locals) <= worker {
		h.locals = append(h.locals, nil)
	}
	if h.locals[worker] == nil {
		h.locals[worker] = &local{host: h}
	}
	return h.locals[worker]
}

// Plan that p chooses in.
func (p *Picker) Plan() *Plan { return p.plan }

// Pick chooses an endpoint of a subset. Rnd is 64 random bits; hash is that of
// the request's key, for RingHash and Maglev. Endpoints in tried (nil: none) are
// avoided while there is another. False: there is nobody, or nobody usable and
// panic is off.
func (p *Picker) Pick(now int64, subset int, rnd, hash uint64, tried *Tried) (int, bool) {
	v := &p.views[subset]
	if v.version != p.plan.shared.version.Load() || now >= v.expires {
		p.refresh(v, now, rnd)
	}
	l := v.only
	if l < 0 {
		if len(v.levels) == 0 {
			return -1, false
		}
		r := rnd
		if v.may != nil {
			r = hash
		}
		l = v.level(int(Mix(r+step) >> 32 * 100 >> 32))
	}
	if l >= len(v.levels) || len(v.levels[l].live) == 0 {
		return -1, false
	}
	i := p.choose(v, l, now, rnd, hash, tried)
	if tried.empty() || i >= 0 && !tried.Has(i) {
		return i, i >= 0
	}
	return p.another(v, l, now, rnd, hash, tried)
}

// level that a number below 100 falls into; none: the number of levels.
func (v *view) level(percent int) int {
	for l := range v.levels {
		if percent < v.levels[l].until {
			return l
		}
	}
	return len(v.levels)
}

// choose among the live of a level; -1 only when ring or table find nobody.
func (p *Picker) choose(v *view, l int, now int64, rnd, hash uint64, tried *Tried) int {
	c := &v.levels[l]
	switch p.plan.method {
	case roundRobin:
		if c.equal {
			i := c.live[int(c.turn)%len(c.live)]
			c.turn++
			return int(i)
		}
		return int(c.edf.next(p.gaps))
	case random:
		return int(c.draw(uint32(rnd)))
	case ringHash:
		return v.subset.levels[l].ring.pick(hash, v.may, tried)
	case maglevHash:
		return v.subset.levels[l].maglev.pick(hash, v.may, tried)
	}
	return p.lightest(c, now, rnd)
}

// draw one of the live, by weight.
func (c *choice) draw(r uint32) int32 {
	if c.equal {
		return c.live[below(r, len(c.live))]
	}
	return c.live[c.alias.draw(r)]
}

// redraws are how often an endpoint is drawn again that was drawn already.
const redraws = 4

// lightest of as many as the configuration says, drawn by weight.
func (p *Picker) lightest(c *choice, now int64, rnd uint64) int {
	best := c.draw(uint32(rnd))
	n := len(c.live)
	if n == 1 {
		return int(best)
	}
	r := rnd >> 32
	least := p.load(best, now)
	for k := 1; k < p.plan.choices; k++ {
		other := c.draw(uint32(r))
		for again := 0; other == best && again < redraws; again++ {
			rnd += step
			other = c.draw(uint32(Mix(rnd)))
		}
		if load := p.load(other, now); load < least {
			best, least = other, load
		}
		rnd += step
		r = Mix(rnd)
	}
	return int(best)
}

// load of an endpoint by its weight.
func (p *Picker) load(i int32, now int64) float64 {
	l := p.locals[i]
	if p.plan.method == peakEWMA {
		return l.load(now, p.plan.tau) * p.gaps[i]
	}
	return float64(l.pending) * p.gaps[i]
}

// another endpoint than those tried: in this level, else in another that has
// somebody, else one that was tried.
func (p *Picker) another(v *view, l int, now int64, rnd, hash uint64, tried *Tried) (int, bool) {
	if v.may == nil {
		for k := range uint64(redraws) {
			if i := p.choose(v, l, now, Mix(rnd+k*step), hash, tried); !tried.Has(i) {
				return i, true
			}
		}
	}
	for k := range v.levels {
		live := v.levels[(l+k)%len(v.levels)].live
		begin := 0
		if len(live) > 0 {
			begin = below(uint32(rnd), len(live))
		}
		for j := range live {
			if i := int(live[(begin+j)%len(live)]); !tried.Has(i) {
				return i, true
			}
		}
	}
	i := p.choose(v, l, now, rnd, hash, nil)
	return i, i >= 0
}

// Begin is told when a request is sent to the endpoint i. Each Begin has one End.
func (p *Picker) Begin(i int) { p.locals[i].pending++ }

// End is told when a request is over. When that ejected the endpoint, the Event
// says so; else its Reason is NoReason.
func (p *Picker) End(i int, now int64, o Outcome) Event {
	l := p.locals[i]
	l.pending--
	if p.plan.method == peakEWMA {
		l.learn(now, o, p.plan.tau)
	}
	if p.plan.outlier == nil || o.Result == Canceled {
		return Event{}
	}
	return p.plan.judge(l, now, o)
}

// Pending requests of this worker at the endpoint i.
func (p *Picker) Pending(i int) int { return int(p.locals[i].pending) }

// Usable says whether the endpoint i is well and not ejected.
func (p *Picker) Usable(i int) bool { return p.plan.hosts[i].usable() }
