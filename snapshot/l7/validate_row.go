package l7

// Validate says what is wrong with a Route whose Listeners and Clusters are
// elsewhere: only what can be seen in it alone.
func (r *Route) Validate() []Problem {
	v := &validator{config: &Config{}}
	v.route("route", r)
	return hard(v.problems)
}

// Validate says what is wrong with a Cluster whose Certificates are elsewhere.
func (c *Cluster) Validate() []Problem {
	v := &validator{config: &Config{}, certificates: map[string]int{}}
	if c.TLS != nil {
		v.certificates[c.TLS.Certificate] = 0
	}
	v.cluster("cluster", c)
	return hard(v.problems)
}

// hard leaves out what a proxy can run with.
func hard(all []Problem) []Problem {
	var out []Problem
	for _, p := range all {
		if !p.Soft {
			out = append(out, p)
		}
	}
	return out
}

// Validate says what is wrong with one Match of an HTTPRoute.
func (m *Match) Validate() []Problem {
	v := &validator{config: &Config{}}
	v.match("match", HTTPRoute, m)
	return hard(v.problems)
}
