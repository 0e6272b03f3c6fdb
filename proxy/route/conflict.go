package route

import "moire.dev/moire/snapshot/l7"

// claims are the hostnames of one listener that routes of one kind have taken,
// with the route that was first. The empty hostname is all hosts.
type claims struct {
	taken map[l7.Kind]*claimed
}

type claimed struct {
	exact map[string]string // hostname to route
	wild  map[string]string // what follows "*." to route
	below map[string]string // names that something taken is below, "" too
}

// claim takes hostnames for a route of a kind, unless one shares a host of the
// listener with a route of the other kind: then it returns that one's name. The
// hostnames intersect with the listener's.
func (c *claims) claim(hostnames []string, listener string, kind l7.Kind, route string) string {
	other := l7.GRPCRoute
	if kind == l7.GRPCRoute {
		other = l7.HTTPRoute
	}
	if o := c.taken[other]; o != nil {
		for _, h := range hostnames {
			if name := o.meets(narrower(h, listener)); name != "" {
				return name
			}
		}
	}
	if c.taken == nil {
		c.taken = map[l7.Kind]*claimed{}
	}
	mine := c.taken[kind]
	if mine == nil {
		mine = &claimed{map[string]string{}, map[string]string{}, map[string]string{}}
		c.taken[kind] = mine
	}
	for _, h := range hostnames {
		mine.add(narrower(h, listener), route)
	}
	return ""
}

// narrower is the intersection of two hostnames of which one covers the other.
func narrower(h, listener string) string {
	if covers(h, listener) {
		return listener
	}
	return h
}

func (c *claimed) add(hostname, route string) {
	name, wild := trimWildcard(hostname)
	if wild || name == "" {
		first(c.wild, name, route)
	} else {
		first(c.exact, name, route)
		name = parent(name)
	}
	for {
		first(c.below, name, route)
		if name == "" {
			return
		}
		name = parent(name)
	}
}

func first(m map[string]string, k, v string) {
	if _, ok := m[k]; !ok {
		m[k] = v
	}
}

// parent is a name without its first label.
func parent(name string) string {
	for i := range len(name) {
		if name[i] == '.' {
			return name[i+1:]
		}
	}
	return ""
}

// meets is a route that took a hostname which shares a host with this one.
func (c *claimed) meets(hostname string) string {
	name, wild := trimWildcard(hostname)
	if wild || name == "" {
		if r := c.below[name]; r != "" {
			return r
		}
	} else if r := c.exact[name]; r != "" {
		return r
	}
	for name != "" {
		name = parent(name)
		if r := c.wild[name]; r != "" {
			return r
		}
	}
	return ""
}
