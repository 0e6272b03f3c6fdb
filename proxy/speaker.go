package proxy

import (
	"maps"

	"moire.dev/moire/proxy/balance"
)

// speaker makes a worker's connections to endpoints for one Workload, from its
// network namespace, or for the proxy itself; in one configuration. Its pools are
// made when they are first needed.
type speaker struct {
	w     *worker
	plan  *plan
	work  *workload // nil: the proxy itself
	pools []*pool   // by cluster of the plan
	app   *pool     // of the application of work
	away  *pool     // of what it calls where no Listener is
	over  bool      // that of a newer plan has its place
}

// pool of a cluster.
func (s *speaker) pool(cluster int) *pool {
	if s.pools == nil {
		s.pools = make([]*pool, len(s.plan.clusters))
	}
	if s.pools[cluster] == nil {
		s.pools[cluster] = s.newPool(s.plan.clusters[cluster], nil)
	}
	return s.pools[cluster]
}

// newPool is the pool of a cluster; connections of an older one to addresses
// that stay are kept when they are spoken to as before.
func (s *speaker) newPool(c *settings, old *pool) *pool {
	p := &pool{settings: c, speaker: s, w: s.w, table: s.plan.table, pick: s.w.picker(s.plan, c), ends: make(map[endKey]*endpoint, len(c.ends))}
	same := old != nil && old.spokenLike(c)
	if same && p.roams {
		maps.Copy(p.ends, old.ends)
	}
	for _, key := range c.ends {
		if s.work != nil && !s.work.Meshed { // who is not in the mesh speaks plainly to all
			key.spiffe = ""
		}
		if same && old.ends[key] != nil {
			p.ends[key] = old.ends[key]
		}
		p.at = append(p.at, p.end(key))
	}
	return p
}

// picker of a cluster of a plan; all speakers of a worker choose by the same
// one. Nobody chooses among the one endpoint of a cluster that roams.
func (w *worker) picker(n *plan, c *settings) *balance.Picker {
	if n != w.plan || c.roams { // an exchange that goes by an older plan
		return c.plan.Picker(w.index)
	}
	if w.pickers[c.id] == nil {
		w.pickers[c.id] = c.plan.Picker(w.index)
	}
	return w.pickers[c.id]
}

// succeed hands what s has to the speaker of a newer plan, which it returns.
func (s *speaker) succeed(next *speaker) *speaker {
	if s == nil {
		return next
	}
	s.over = true
	for _, old := range s.pools {
		if old == nil {
			continue
		}
		i, ok := next.plan.named[old.name]
		if !ok {
			old.retire(nil)
			continue
		}
		if next.pools == nil {
			next.pools = make([]*pool, len(next.plan.clusters))
		}
		next.pools[i] = next.newPool(next.plan.clusters[i], old)
		old.retire(next.pools[i].ends)
	}
	if s.app != nil {
		next.app = next.newPool(next.work.app, s.app)
	}
	if s.away != nil {
		next.away = next.newPool(next.work.away, s.away)
	}
	return next
}

// end retires all pools: the Workload is no more.
func (s *speaker) end() {
	s.over = true
	for _, p := range append([]*pool{s.app, s.away}, s.pools...) {
		if p != nil {
			p.retire(nil)
		}
	}
}

// sweep closes connections that were idle for too long.
func (s *speaker) sweep(now int64) {
	if s == nil {
		return
	}
	for _, p := range s.pools {
		p.sweep(now)
	}
	s.app.sweep(now)
	s.away.sweep(now)
}

// retire ends the idle connections to addresses that are not in keep; those in
// use end after their exchange.
func (p *pool) retire(keep map[endKey]*endpoint) {
	for key, e := range p.ends {
		if keep[key] == e {
			continue
		}
		e.gone = true
		p.w.shed(e.idle)
		e.idle = nil
		for _, u := range append([]*upConn(nil), e.two...) {
			if u.two != nil {
				u.two.retire()
			}
		}
	}
}

// shed closes connections that nobody will use, some in each turn.
func (w *worker) shed(idle []*upConn) {
	if len(w.sheds) == 0 && len(idle) > 0 {
		w.loop.Post(w.shedSome)
	}
	w.sheds = append(w.sheds, idle...)
}

func (w *worker) shedSome() {
	n := min(len(w.sheds), stride)
	for _, u := range w.sheds[:n] {
		u.close()
	}
	if w.sheds = w.sheds[n:]; len(w.sheds) > 0 {
		w.loop.Post(w.shedSome)
	} else {
		w.sheds = nil
	}
}
