package route

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"moire.dev/moire/snapshot/l7"
)

// compileRoute makes the Route, its rules and their matches.
func (b *builder) compileRoute(i int) {
	c := &b.cfg.Routes[i]
	route := &Route{ID: i, Name: c.Name, Kind: cmp.Or(c.Kind, l7.HTTPRoute)}
	b.table.routes = append(b.table.routes, route)
	rules := make([]compiledRule, 0, len(c.Rules))
	for j := range c.Rules {
		where := fmt.Sprintf("routes[%d].rules[%d]", i, j)
		rule := b.compileRule(where, route, &c.Rules[j], j)
		b.table.rules = append(b.table.rules, rule)
		r := compiledRule{rule: rule}
		matches := c.Rules[j].Matches
		if len(matches) == 0 {
			matches = []l7.Match{{}}
		}
		for k := range matches {
			at := fmt.Sprintf("%s.matches[%d]", where, k)
			if route.Kind == l7.GRPCRoute {
				r.matches = append(r.matches, b.compileGRPC(at, rule, &matches[k]))
			} else {
				r.matches = append(r.matches, b.compileHTTP(at, rule, &matches[k]))
			}
		}
		rules = append(rules, r)
	}
	b.compiled = append(b.compiled, rules)
}

func (b *builder) compileRule(where string, route *Route, c *l7.Rule, j int) *Rule {
	r := &Rule{ID: len(b.table.rules), Route: route, Name: cmp.Or(c.Name, strconv.Itoa(j)),
		Retry: c.Retry, Hedge: c.Hedge, Fault: c.Fault, RateLimits: c.RateLimits, Hash: c.Hash, Subset: c.Subset}
	r.Filters = b.compileFilters(where+".filters", c.Filters)
	for k := range c.Backends {
		d := &c.Backends[k]
		weight := uint32(1)
		if d.Weight != nil {
			weight = *d.Weight
		}
		r.total += uint64(weight)
		r.upTo = append(r.upTo, r.total)
		r.Backends = append(r.Backends, Backend{Cluster: b.cluster(d.Cluster), Weight: weight,
			Filters: b.compileFilters(fmt.Sprintf("%s.backends[%d].filters", where, k), d.Filters)})
	}
	for i := range c.Hash {
		r.hash = append(r.hash, hashSource(&c.Hash[i]))
	}
	for i := range c.RateLimits {
		r.limiters = append(r.limiters, limitSource(c.RateLimits[i].By))
	}
	return r
}

func (b *builder) compileHTTP(where string, rule *Rule, c *l7.Match) compiledMatch {
	m := compiledMatch{kind: pathPrefix, placed: b.candidate(where, rule, c)}
	if c.Method == "" {
		m.order.rank[1] = 1
	}
	m.method = c.Method
	if c.Path == nil {
		return m
	}
	switch cmp.Or(c.Path.Kind, l7.Exact) {
	case l7.Exact:
		m.kind, m.path = exactPath, c.Path.Value
	case l7.Prefix:
		m.path = strings.TrimSuffix(c.Path.Value, "/")
	case l7.Regex:
		m.kind, m.patterns = pathPattern, &patterns{path: b.pattern(where+".path.value", c.Path.Value)}
		m.order.rank[0] = -len(c.Path.Value)
	}
	return m
}

func (b *builder) compileGRPC(where string, rule *Rule, c *l7.Match) compiledMatch {
	m := compiledMatch{kind: grpcEvery, placed: b.candidate(where, rule, c)}
	g := c.GRPC
	if g == nil {
		return m
	}
	regex := g.Kind == l7.Regex
	if regex {
		m.patterns = &patterns{}
	}
	switch {
	case regex && g.Service != "":
		m.kind, m.patterns.service = grpcPattern, b.pattern(where+".grpc.service", g.Service)
		m.order.rank[0] = -len(g.Service)
	case g.Service != "" && g.Method != "":
		m.kind, m.path = grpcBoth, "/"+g.Service+"/"+g.Method
	case g.Service != "":
		m.kind, m.path = grpcService, g.Service
	case g.Method != "" && !regex:
		m.kind, m.path = grpcCall, g.Method
	}
	if regex && g.Method != "" {
		m.patterns.call = b.pattern(where+".grpc.method", g.Method)
		m.order.rank[1] = -len(g.Method)
	}
	return m
}

func (b *builder) candidate(where string, rule *Rule, c *l7.Match) placed {
	m := placed{candidate: candidate{rule: rule}}
	m.headers = b.conditions(where+".headers", c.Headers, true)
	m.query = b.conditions(where+".query", c.Query, false)
	m.order.headers, m.order.query = len(m.headers), len(m.query)
	return m
}

func (b *builder) pattern(where, text string) *pattern {
	p, err := compilePattern(text)
	if err != nil {
		b.fail("%s: %w", where, err)
	}
	return p
}

func (b *builder) compileFilters(where string, all []l7.Filter) Filters {
	var out Filters
	for i := range all {
		switch c := &all[i]; {
		case c.RequestHeaders != nil:
			out.request = compileHeaders(c.RequestHeaders)
		case c.ResponseHeaders != nil:
			out.response = compileHeaders(c.ResponseHeaders)
		case c.Redirect != nil:
			out.Redirect = compileRedirect(c.Redirect)
		case c.Rewrite != nil:
			out.rewrite = compileRewrite(c.Rewrite)
		case c.CORS != nil:
			out.CORS = compileCORS(c.CORS)
		case c.Mirror != nil:
			m := Mirror{Cluster: b.cluster(c.Mirror.Cluster), share: 1, of: 1}
			if f := c.Mirror.Fraction; f != nil {
				m.share, m.of = uint64(f.Numerator), uint64(cmp.Or(f.Denominator, 100))
			}
			out.Mirrors = append(out.Mirrors, m)
		default:
			b.fail("%s[%d]: the filter has no part", where, i)
		}
	}
	return out
}
