package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	routes "moire.dev/moire/proxy/route"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// frontend is what the source's proxy finds at the address of a Service.
func (p *path) frontend(s *snapshot.Snapshot, x snapshot.Service) (snapshot.Frontend, string, bool) {
	if p.protocol != policy.TCP {
		return snapshot.Frontend{}, "", false
	}
	if f, ok := s.FrontendOf(x.ServiceKey, p.src.Project); ok {
		return f, cmp.Or(f.Why, "a route is attached to "+p.title(x)), true
	}
	f := snapshot.Frontend{Protocol: cmp.Or(x.App, l7.TCP), Cluster: snapshot.ClusterName(&x)}
	asks := p.asksOf(s, x)
	if asks != "" && x.App == "" { // nobody said what is spoken
		f.Protocol, f.Cluster = l7.AutoHTTP, snapshot.ClusterAs(&x, l7.HTTP1)
	}
	switch {
	case p.src.Mode != snapshot.Off && s.Meshed(&x):
		return f, bothMeshed, true
	case asks != "":
		return f, string(asks), true
	}
	return snapshot.Frontend{}, "", false
}

// asksOf is the rule of the source that is about requests to some backend; "": there is none.
func (p *path) asksOf(s *snapshot.Snapshot, x snapshot.Service) policy.RuleID {
	set := s.Policies[snapshot.PolicyKey{VNI: p.src.Addr.VNI, Identity: p.src.Identity, Direction: policy.Egress}]
	for _, b := range x.Backends {
		v := set.Decide(policy.Packet{Peer: s.Endpoints[b.Addr].Identity, PeerAddr: b.Addr.IP, Protocol: policy.TCP, Port: cmp.Or(b.Port, x.Port)})
		if v.Proxy {
			return v.Rule
		}
	}
	return ""
}

// front is what the source's proxy does with what is sent to a Service. nil: it
// ends here, and the Answer says why.
func (p *path) front(n snapshot.Network, s *snapshot.Snapshot, x snapshot.Service, f snapshot.Frontend, why string) *route {
	if p.private = !p.sees(x.Project); p.private {
		why = "routes of a project that you may not see"
	}
	p.fronted, p.opaque = true, f.Protocol == l7.TCP || f.Protocol == l7.TLS
	p.needs(AtSource, p.src, why)
	p.step(Step{Name: StepFrontend, Result: ResultOK, Node: p.src.Node, Text: fmt.Sprintf("%s is %s: the proxy of %s takes it (%s), as %s", at(p.dst, p.port), p.title(x), p.who(p.src), why, speaks(f.Protocol))})
	cluster, ok := p.routed(s, f)
	if !ok {
		return nil
	}
	if !p.private {
		p.mesh().Cluster = cluster
	}
	c, known := s.Clusters[cluster]
	if !known {
		c = plainCluster(s, cluster)
	}
	backends := p.subset(s, s.BackendsOf(&c))
	if len(backends) == 0 {
		why := p.secret(fmt.Sprintf("cluster %s has no backend that is well", cluster))
		p.step(Step{Name: StepChoice, Result: ResultNone, Node: p.src.Node, Rule: NoBackend, Text: why})
		p.Decides = ByProxy
		p.deny(NoBackend, why)
		return nil
	}
	b := backends[p.pick(len(backends))]
	text := p.secret(fmt.Sprintf("cluster %s: its only backend is %s", cluster, p.backend(s, b)))
	if len(backends) > 1 {
		text = p.secret(fmt.Sprintf("cluster %s: the balancer (%s) chooses one of %d backends: %s", cluster, balancer(&c), len(backends), p.backends(s, backends)))
	}
	p.step(Step{Name: StepService, Result: ResultOK, Node: p.src.Node, Text: text})
	p.dst, p.port = b.Addr.IP, b.Port
	p.Backend = at(p.dst, p.port)
	if p.dst.Is6() != p.src.Addr.IP.Is6() {
		own := p.endpoints(func(e snapshot.Endpoint) bool {
			return p.sender(e) && e.Addr.IP.Is6() == p.dst.Is6()
		})
		if len(own) == 0 {
			return p.lost(NoRoute, fmt.Sprintf("%s has no address of the family of %s", p.who(p.src), p.dst))
		}
		p.src = own[0]
	}
	return p.plain(n)
}

func speaks(proto l7.Protocol) string {
	switch proto {
	case l7.TCP:
		return "bytes"
	case l7.TLS:
		return "TLS, unopened"
	case l7.HTTP2:
		return "HTTP/2"
	}
	return "HTTP"
}

func balancer(c *snapshot.Cluster) l7.BalancerKind { return cmp.Or(c.Balancer.Kind, l7.LeastRequest) }

// secret is a text about routes, as far as who asks may know it.
func (p *path) secret(text string) string {
	if p.private {
		return "the other side decides; its project is not yours to see"
	}
	return text
}

// plainCluster is a port of a Service that nothing is attached to, by its name.
func plainCluster(s *snapshot.Snapshot, name string) (c snapshot.Cluster) {
	var keys []snapshot.ServiceKey
	for k, x := range s.Services {
		plain, http := snapshot.ClusterName(&x), snapshot.ClusterAs(&x, l7.HTTP1)
		if (plain == name || http == name) && k.Protocol == policy.TCP {
			if c.Protocol = cmp.Or(x.App, l7.TCP); http == name || c.Protocol == l7.AutoHTTP {
				c.Protocol = l7.HTTP1
			}
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, snapshot.ServiceKey.Compare)
	if len(keys) > 0 {
		c.Service = keys[0]
		if s.Services[keys[0]].Affinity > 0 {
			c.Balancer.Kind = l7.Maglev // by the caller's address
		}
	}
	if len(keys) > 1 {
		c.Second = keys[1]
	}
	return c
}

// subset leaves the backends with the labels that the rule asks for.
func (p *path) subset(s *snapshot.Snapshot, all []snapshot.Backend) []snapshot.Backend {
	if p.rule == nil || len(p.rule.Subset) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(b snapshot.Backend) bool {
		labels := s.Identities[s.Endpoints[b.Addr].Identity].Labels
		for k, v := range p.rule.Subset {
			if !slices.Contains(labels, snapshot.Label{Key: k, Value: v}) {
				return true
			}
		}
		return false
	})
}

// routed is the cluster that the proxy's routes choose, by the code of the proxy.
func (p *path) routed(s *snapshot.Snapshot, f snapshot.Frontend) (string, bool) {
	table, cfg, err := tableOf(s, f, []heard{{l7.Listener{Name: "here", Protocol: f.Protocol, Trusted: true}, f.Routes}})
	if err != nil {
		return p.unrouted(500, NoBackend, "the proxy refuses the routes of this address: "+err.Error())
	}
	var scratch routes.Scratch
	switch {
	case f.Protocol == l7.TCP:
		p.rule = table.MatchTCP(0)
	case f.Protocol == l7.TLS:
		p.rule = table.MatchTLS(0, []byte(p.sni()), &scratch)
	case p.exchange == nil:
		return p.anyCluster(cfg)
	default:
		x := p.exchange
		found := table.Match(0, &x.head, &x.scratch, &x.arena)
		p.rule = found.Rule
		switch {
		case found.Status == 400:
			return p.unrouted(400, BadRequest, "the proxy refuses the request: "+found.Why)
		case p.rule == nil:
			return p.unrouted(404, NoRule, fmt.Sprintf("no rule of the routes here takes %s", x))
		case p.rule.Filters.Redirect != nil:
			return p.answeredByProxy(found)
		}
		p.rule.Filters.Request(&x.head, found.Prefix, &x.arena)
		b, ok := p.share(cfg)
		if !ok {
			return "", false
		}
		b.Filters.Request(&x.head, found.Prefix, &x.arena)
		return cfg.Clusters[b.Cluster].Name, true
	}
	if p.rule == nil {
		return p.unrouted(0, NoRule, "no route here takes the connection")
	}
	b, ok := p.share(cfg)
	if !ok {
		return "", false
	}
	return cfg.Clusters[b.Cluster].Name, true
}

// heard is a listener with the names of its routes.
type heard struct {
	l7.Listener
	routes []string
}

// tableOf is the part of the proxy's table that is about the listeners of one
// address; f says where goes what no route of the first one takes.
func tableOf(s *snapshot.Snapshot, f snapshot.Frontend, at []heard) (*routes.Table, *l7.Config, error) {
	cfg, of := &l7.Config{Name: "explain"}, map[string][]string{}
	for _, h := range at {
		h.Address, h.View = "0.0.0.0:1", "here"
		if h.TLS != nil { // which certificate it is routes nothing
			h.TLS = &l7.ServerTLS{Certificates: []string{"some"}}
			cfg.Certificates = []l7.Certificate{{Name: "some", Chain: "some", Key: "some"}}
		}
		cfg.Listeners = append(cfg.Listeners, h.Listener)
		for _, name := range h.routes {
			of[name] = append(of[name], h.Name)
		}
	}
	clusters := map[string]bool{}
	add := func(r l7.Route, listeners ...string) {
		r.Listeners = listeners
		cfg.Routes = append(cfg.Routes, r)
		for i := range r.Rules {
			for _, b := range r.Rules[i].Backends {
				clusters[b.Cluster] = true
			}
		}
	}
	for name, listeners := range of {
		if r, known := s.Routes[name]; known {
			add(r, listeners...)
		}
	}
	if r, ok := f.DefaultRoute(); ok {
		add(r, at[0].Name)
	}
	slices.SortFunc(cfg.Routes, func(a, b l7.Route) int { return cmp.Compare(a.Name, b.Name) })
	for name := range clusters {
		c, known := s.Clusters[name]
		if !known {
			if c = plainCluster(s, name); !c.Service.Addr.IP.IsValid() {
				continue
			}
		}
		c.Name, c.Endpoints = name, nil
		cfg.Clusters = append(cfg.Clusters, c.Cluster)
	}
	slices.SortFunc(cfg.Clusters, func(a, b l7.Cluster) int { return cmp.Compare(a.Name, b.Name) })
	t, err := routes.Build(cfg)
	return t, cfg, err
}

// sni is the name that a TLS client asks for.
func (p *path) sni() string {
	if p.exchange != nil {
		return string(p.exchange.scratch.Host())
	}
	return cmp.Or(p.name, p.ends.to.dns)
}

// anyCluster: nobody said which request, so it may go wherever a route leads.
func (p *path) anyCluster(cfg *l7.Config) (string, bool) {
	if len(cfg.Clusters) == 0 {
		return p.unrouted(500, NoBackend, "no route here has a backend that exists")
	}
	c := cfg.Clusters[p.pick(len(cfg.Clusters))].Name
	if len(cfg.Clusters) > 1 {
		p.step(Step{Name: StepRequest, Result: ResultNone, Node: p.src.Node, Text: fmt.Sprintf("each request is routed by itself, to one of %d clusters; ask about one with a request", len(cfg.Clusters))})
	}
	return c, true
}

// share is the backend of the rule that a random number chooses, and tells of all.
func (p *path) share(cfg *l7.Config) (*routes.Backend, bool) {
	m, r := p.mesh(), p.rule
	if p.private {
		m = &Mesh{} // of no use
	}
	m.Route, m.Rule = snapshot.RouteObject(r.Route.Name), r.Name
	m.Shares = sharesOf(cfg, r)
	var some []int
	for i, b := range r.Backends {
		if b.Weight > 0 {
			some = append(some, i)
		}
	}
	if len(some) == 0 {
		_, _ = p.unrouted(500, NoBackend, fmt.Sprintf("rule %s of %s has no backend", r.Name, routeText(r.Route.Name)))
		return nil, false
	}
	b := &r.Backends[some[p.pick(len(some))]]
	if !strings.HasPrefix(r.Route.Name, "default/") { // what takes all needs no word
		p.step(Step{Name: StepRequest, Result: ResultOK, Node: p.src.Node, Text: p.secret(fmt.Sprintf("%s, rule %s%s: %s", routeText(r.Route.Name), r.Name, p.extras(cfg), shown(m.Shares)))})
	}
	if b.Cluster == routes.Invalid {
		_, _ = p.unrouted(500, NoBackend, fmt.Sprintf("rule %s of %s names a backend that does not exist", r.Name, routeText(r.Route.Name)))
		return nil, false
	}
	return b, true
}

// sharesOf are the backends of a rule that get anything, with how much of it.
func sharesOf(cfg *l7.Config, r *routes.Rule) (out []Share) {
	total := uint32(0)
	for _, b := range r.Backends {
		total += b.Weight
	}
	for _, b := range r.Backends {
		if b.Weight == 0 {
			continue
		}
		name := "a cluster that does not exist"
		if b.Cluster != routes.Invalid {
			name = cfg.Clusters[b.Cluster].Name
		}
		out = append(out, Share{name, 100 * float64(b.Weight) / float64(total)})
	}
	return out
}

// shown are shares as people read them.
func shown(shares []Share) string {
	var all []string
	for _, s := range shares {
		all = append(all, fmt.Sprintf("%s %.4g %%", s.Cluster, s.Percent))
	}
	return few(all)
}

// extras are what a rule does beside.
func (p *path) extras(cfg *l7.Config) string {
	var out []string
	if f := p.rule.Fault; f != nil {
		out = append(out, "faults are put in on purpose")
	}
	for _, m := range p.rule.Filters.Mirrors {
		if m.Cluster != routes.Invalid {
			out = append(out, "copies go to "+cfg.Clusters[m.Cluster].Name)
		}
	}
	if len(p.rule.RateLimits) > 0 {
		out = append(out, "its rate is limited")
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, ", ") + ")"
}

// unrouted ends the walk in the source's proxy.
func (p *path) unrouted(status int, id policy.RuleID, why string) (string, bool) {
	p.mesh().Status, p.Decides = status, ByProxy
	why = p.secret(why)
	p.step(Step{Name: StepRequest, Result: ResultNone, Node: p.src.Node, Rule: id, Text: why})
	switch {
	case status == 0:
	case p.calls():
		p.mesh().Status = 200
		why = fmt.Sprintf("%s; its proxy answers with the status of gRPC that %d stands for", why, status)
	default:
		why = fmt.Sprintf("%s; its proxy answers %d", why, status)
	}
	p.deny(id, why)
	return "", false
}

// calls: what is asked about is a gRPC call, to which proxies answer in its own way.
func (p *path) calls() bool { return p.exchange != nil && routes.IsGRPC(&p.exchange.head) }

// routeText names a route for people: the object that it is made of.
func routeText(name string) string {
	if object := snapshot.RouteObject(name); object != name && object != "" {
		return object
	}
	return "route " + name
}

// answeredByProxy: the request goes nowhere, but is answered.
func (p *path) answeredByProxy(f routes.Found) (string, bool) {
	m, r := p.mesh(), f.Rule
	m.Status, p.Decides = r.Filters.Redirect.Status, ByProxy
	if !p.private {
		m.Route, m.Rule = snapshot.RouteObject(r.Route.Name), r.Name
	}
	why := p.secret(fmt.Sprintf("%s, rule %s: the proxy of the source answers with a redirect (%d)", routeText(r.Route.Name), r.Name, m.Status))
	p.step(Step{Name: StepRequest, Result: ResultOK, Node: p.src.Node, Text: why})
	if p.calls() {
		m.Status = 200
		why += ", for gRPC with a status of its own"
	}
	p.Allow, p.Reason = true, why
	return "", false
}
