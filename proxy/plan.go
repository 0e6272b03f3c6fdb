package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"moire.dev/moire/proxy/http1"
	"moire.dev/moire/proxy/resilience"
	"moire.dev/moire/proxy/route"
	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/snapshot/l7"
)

// plan is one configuration, ready to be served. It is immutable; exchanges end
// with the plan that they began with.
type plan struct {
	conf      *l7.Config
	routes    *route.Table
	rules     []*rule // by route.Rule.ID
	table     *telemetry.Table
	listeners []*listener    // as in conf
	clusters  []*settings    // as in conf
	named     map[string]int // clusters by name
	doors     map[string]int // listeners by name
	mesh      *meshed        // nil: none
	shared    map[spot]int   // how many listeners there are
}

// spot is an address as those with a View see it.
type spot struct {
	view string
	addr netip.AddrPort
}

// rule is a route.Rule and what else it takes to serve it.
type rule struct {
	*route.Rule
	tel       int32
	deadlines resilience.Deadlines
	retry     *resilience.Retry
	hedge     resilience.Hedge
	fault     *resilience.Fault
	limiters  []*resilience.Limiter
	subsets   []int // by backend: the subset of its cluster
}

// listener is one listener of a plan.
type listener struct {
	index   int
	id      int32
	conf    *l7.Listener
	addr    netip.AddrPort
	trusted bool
	limits  limits
	tls     *serverTLS // nil: plain
}

func (l *listener) spot() spot { return spot{l.conf.View, l.addr} }

// limits of a listener, nanoseconds; zero or less: none.
type limits struct {
	head                             http1.Limits
	body                             int64
	connections, streams, requests   int
	handshake, headTime, idle, stall int64
	minRate                          int // bytes per second
}

func newLimits(l *l7.Limits) limits {
	or := func(v, otherwise int) int {
		if v == 0 {
			return otherwise
		}
		return max(v, 0)
	}
	return limits{
		head: http1.Limits{Head: min(or(l.Head, 64<<10), 64<<10), Fields: or(l.Fields, 100)}, body: l.Body,
		connections: or(l.Connections, 50_000), streams: or(l.Streams, 100), requests: l.Requests,
		handshake: int64(l.Handshake.Or(5e9)), headTime: int64(l.HeadTime.Or(10e9)),
		idle: int64(l.Idle.Or(3600e9)), stall: int64(l.Stall.Or(300e9)), minRate: or(l.MinRate, 240),
	}
}

// prepare makes of a plan what can be made without a change to anything that is
// served: nearly all that can be wrong is found here.
func (p *Proxy) prepare(cfg *l7.Config, old *plan) (*plan, error) {
	for _, problem := range cfg.Validate() {
		if !problem.Soft {
			return nil, problem
		}
	}
	routes, err := route.Build(cfg)
	if err != nil {
		return nil, err
	}
	if r := routes.Rejected(); len(r) > 0 {
		p.log.Warn("routes that cannot be reached were left out", "first", fmt.Sprint(r[0]), "count", len(r))
	}
	n := &plan{conf: cfg, routes: routes, shared: map[spot]int{}, named: make(map[string]int, len(cfg.Clusters)), doors: make(map[string]int, len(cfg.Listeners))}
	if n.mesh, err = p.prepareMesh(cfg, old); err != nil {
		return nil, err
	}
	if err := p.secrets.try(cfg); err != nil {
		return nil, err
	}
	for i := range cfg.Listeners {
		l, err := p.listener(cfg, i)
		if err != nil {
			return nil, err
		}
		n.listeners = append(n.listeners, l)
		n.doors[l.conf.Name] = i
		n.shared[l.spot()]++
	}
	for i := range cfg.Clusters {
		c := &cfg.Clusters[i]
		tls, err := p.clientTLS(c)
		if err != nil {
			return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		n.clusters = append(n.clusters, &settings{tls: tls})
		n.named[c.Name] = i
	}
	return n, nil
}

// complete gives a plan what it shares with the one before: certificates,
// clusters and rate limits of the same name.
func (p *Proxy) complete(n, old *plan) error {
	cfg := n.conf
	if err := p.secrets.store.Load(cfg.Certificates); err != nil {
		return err
	}
	subsets := subsetsOf(cfg, n.routes)
	for i := range cfg.Clusters {
		c := &cfg.Clusters[i]
		s, err := p.cluster(c.Name).settings(i, c, subsets[i], p.now(), n.clusters[i].tls)
		if err != nil {
			return err
		}
		n.clusters[i] = s
	}
	n.table = p.tel.Open(cfg)
	if err := p.completeMesh(n, old); err != nil {
		return err
	}
	for id := range n.routes.Rules() {
		r, err := n.rule(n.routes.Rule(id), old)
		if err != nil {
			return err
		}
		n.rules = append(n.rules, r)
	}
	return nil
}

func (n *plan) rule(r *route.Rule, old *plan) (*rule, error) {
	conf := &n.conf.Routes[r.Route.ID]
	index := ruleIndex(n.routes, r)
	out := &rule{Rule: r, tel: n.table.Rule(r.Route.ID, index), retry: resilience.NewRetry(r.Retry), hedge: resilience.NewHedge(r.Hedge),
		deadlines: resilience.NewDeadlines(conf.Rules[index].Timeouts)}
	var err error
	if out.fault, err = resilience.NewFault(r.Fault); err != nil {
		return nil, fmt.Errorf("route %s, rule %s: %w", conf.Name, r.Name, err)
	}
	var before *rule
	if len(r.RateLimits) > 0 {
		before = old.sameRule(conf.Name, r.Name)
	}
	for i, c := range r.RateLimits {
		if before != nil && i < len(before.limiters) && before.limiters[i].Config() == c {
			out.limiters = append(out.limiters, before.limiters[i])
			continue
		}
		out.limiters = append(out.limiters, resilience.NewLimiter(c))
	}
	for _, b := range r.Backends {
		subset := 0
		if b.Cluster != route.Invalid {
			var ok bool
			if subset, ok = n.clusters[b.Cluster].plan.Subset(r.Subset); !ok {
				return nil, fmt.Errorf("route %s, rule %s: no subset %v", conf.Name, r.Name, r.Subset)
			}
		}
		out.subsets = append(out.subsets, subset)
	}
	return out, nil
}

// sameRule is the rule with these names in an older plan.
func (n *plan) sameRule(routeName, ruleName string) *rule {
	if n == nil {
		return nil
	}
	for _, r := range n.rules {
		if len(r.limiters) > 0 && r.Route.Name == routeName && r.Name == ruleName {
			return r
		}
	}
	return nil
}

// ruleIndex is the place of r in its route.
func ruleIndex(t *route.Table, r *route.Rule) int {
	i := 0
	for id := r.ID - 1; id >= 0 && t.Rule(id).Route == r.Route; id-- {
		i++
	}
	return i
}

// subsetsOf are the selectors that rules use, by cluster.
func subsetsOf(cfg *l7.Config, t *route.Table) [][]map[string]string {
	out := make([][]map[string]string, len(cfg.Clusters))
	for id := range t.Rules() {
		r := t.Rule(id)
		if len(r.Subset) == 0 {
			continue
		}
		for _, b := range r.Backends {
			if b.Cluster != route.Invalid && !slices.ContainsFunc(out[b.Cluster], func(m map[string]string) bool { return maps.Equal(m, r.Subset) }) {
				out[b.Cluster] = append(out[b.Cluster], r.Subset)
			}
		}
	}
	return out
}

func (p *Proxy) listener(cfg *l7.Config, i int) (*listener, error) {
	c := &cfg.Listeners[i]
	addr, err := netip.ParseAddrPort(c.Address)
	if err != nil {
		return nil, fmt.Errorf("listener %s: address %q is not an IP address and port", c.Name, c.Address)
	}
	l := &listener{index: i, id: int32(i), conf: c, addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), trusted: c.Trusted, limits: newLimits(&c.Limits)}
	if c.View != "" && c.Trusted { // applications are behind it that do not know of it
		l.limits = newLimits(patient(c.Limits))
	}
	if c.TLS != nil {
		if l.tls, err = p.serverTLS(c); err != nil {
			return nil, fmt.Errorf("listener %s: %w", c.Name, err)
		}
	}
	return l, nil
}
