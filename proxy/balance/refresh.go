package balance

// refresh works a view out again: after a change of somebody's health, and in
// steps while somebody starts slowly. It costs time for each endpoint, and no
// memory.
func (p *Picker) refresh(v *view, now int64, rnd uint64) {
	// Before anything is read: a change in between is seen the next time.
	v.version = p.plan.shared.version.Load()
	v.expires = never
	levels := v.subset.levels
	healths, shares := p.healths[:len(levels)], p.shares[:len(levels)]
	for l := range levels {
		healths[l] = health{all: len(levels[l].members)}
		for _, i := range levels[l].members {
			if p.plan.hosts[i].usable() {
				healths[l].usable++
			}
		}
	}
	split(healths, p.plan.over, p.plan.panicAt, shares)
	v.only = -1
	sum := 0
	for l := range levels {
		sum += shares[l].load
		v.levels[l].until = sum
		if shares[l].load == 100 {
			v.only = l
		}
		p.refreshLevel(v, l, shares[l].panic, now, rnd)
	}
}

func (p *Picker) refreshLevel(v *view, l int, all bool, now int64, rnd uint64) {
	members, c := v.subset.levels[l].members, &v.levels[l]
	changed, n := false, 0
	c.equal = true
	for _, i := range members {
		may := all || p.plan.hosts[i].usable()
		if v.may != nil {
			v.may[i] = may
		}
		if !may {
			continue
		}
		p.gaps[i] = 1 / p.weight(v, int(i), now)
		if n == len(c.live) {
			c.live = append(c.live, i)
			changed = true
		}
		changed = changed || c.live[n] != i
		c.live[n] = i
		c.equal = c.equal && p.gaps[i] == p.gaps[c.live[0]]
		n++
	}
	changed = changed || n != len(c.live)
	c.live = c.live[:n]
	switch {
	case v.may != nil || n == 0:
	case p.plan.method == roundRobin:
		// A view that was never used begins anywhere.
		if c.turn == 0 {
			c.turn = uint32(below(uint32(rnd), n))
		}
		if c.equal {
			c.edf.heap = c.edf.heap[:0]
		} else if changed || len(c.edf.heap) == 0 {
			c.edf.rebuild(c.live, p.gaps, p.deadlines, rnd)
		}
	case !c.equal:
		weights := p.weights[:n]
		for k, i := range c.live {
			weights[k] = 1 / p.gaps[i]
		}
		c.alias.build(weights, p.low, p.high)
	}
}

const (
	// leastShare is what an endpoint gets of its weight at the begin of slow start.
	leastShare = 0.1
	// slowSteps are how often weights follow the curve in a window.
	slowSteps = 200
	second    = 1e9
)

// weight of an endpoint now: in slow start the weight times its age by the
// window, the age counting as a second at least, and never below a tenth.
func (p *Picker) weight(v *view, i int, now int64) float64 {
	w := p.plan.weights[i]
	if p.plan.slow == 0 || v.may != nil {
		return w
	}
	age := now - p.plan.hosts[i].since.Load()
	if age >= p.plan.slow {
		return w
	}
	v.expires = min(v.expires, now+max(p.plan.slow/slowSteps, second/1000))
	return w * min(1, max(leastShare, float64(max(age, second))/float64(p.plan.slow)))
}
