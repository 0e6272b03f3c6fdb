package proxy

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"time"

	"moire.dev/moire/proxy/admin"
	"moire.dev/moire/snapshot/l7"
)

// Ready implements admin.Proxy.
func (p *Proxy) Ready() error {
	switch {
	case p.plan.Load() == nil:
		return errors.New("there is no configuration yet")
	case p.draining.Load():
		return errors.New("draining")
	}
	return nil
}

// seen is what one worker has to say of itself.
type seen struct {
	connections map[netip.AddrPort]int
	active      map[string]map[string]int // by cluster and endpoint
}

// State implements admin.Proxy.
func (p *Proxy) State() admin.State {
	var s admin.State
	n := p.plan.Load()
	if n == nil {
		return s
	}
	all := p.ask()
	for _, l := range n.listeners {
		protocol := cmp.Or(l.conf.Protocol, l7.AutoHTTP)
		out := admin.Listener{Name: l.conf.Name, Address: l.addr.String(), Protocol: string(protocol), TLS: l.tls != nil, Draining: p.draining.Load()}
		for _, w := range all {
			out.Connections += w.connections[l.addr]
		}
		s.Listeners = append(s.Listeners, out)
	}
	for _, c := range n.clusters {
		s.Clusters = append(s.Clusters, p.stateOf(c, all))
	}
	for name, c := range p.secrets.store.Leaves() {
		s.Certificates = append(s.Certificates, admin.Describe(name, c))
	}
	return s
}

func (p *Proxy) stateOf(c *settings, all []seen) admin.Cluster {
	kind := c.conf.Balancer.Kind
	if kind == "" {
		kind = l7.LeastRequest
	}
	connections, pending, requests, _ := c.limits.Levels()
	out := admin.Cluster{Name: c.name, Balancer: string(kind), Active: int(requests.Now), Connections: int(connections.Now), Pending: int(pending.Now)}
	for i, st := range c.shared.Status() {
		e := admin.Endpoint{Address: st.Address, Healthy: st.Well, Ejections: int(st.Times), Weight: 1}
		if i < len(c.conf.Endpoints) {
			conf := &c.conf.Endpoints[i]
			e.Zone, e.Priority = conf.Zone, conf.Priority
			if conf.Weight != nil {
				e.Weight = *conf.Weight
			}
		}
		if st.Ejected {
			e.Ejected = time.Duration(max(st.Until-p.now(), 1))
		}
		for _, w := range all {
			e.Active += w.active[c.name][st.Address]
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	return out
}

// ask has each worker say what it has; one that does not answer in a second is
// left out.
func (p *Proxy) ask() []seen {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	answers := make(chan seen, len(p.workers))
	for _, w := range p.workers {
		w.loop.Post(func() { answers <- w.seen() })
	}
	var all []seen
	for range p.workers {
		select {
		case s := <-answers:
			all = append(all, s)
		case <-ctx.Done():
			return all
		}
	}
	return all
}

func (w *worker) seen() seen {
	s := seen{connections: map[netip.AddrPort]int{}, active: map[string]map[string]int{}}
	for addr, a := range w.listeners {
		s.connections[addr] = a.open
	}
	for i, pick := range w.pickers {
		if pick == nil {
			continue
		}
		m := map[string]int{}
		for j := range pick.Plan().Len() {
			m[pick.Plan().Address(j)] = pick.Pending(j)
		}
		s.active[w.plan.clusters[i].name] = m
	}
	return s
}

var _ admin.Proxy = (*Proxy)(nil)
