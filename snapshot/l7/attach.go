package l7

import (
	"cmp"
	"slices"
	"strings"
)

// Attachment is a Route at a Listener.
type Attachment struct {
	Route, Listener int // indices in the Config
	// Hostnames of the Route that share a host with the Listener's, as they are in
	// the Route; "" when the Route has none.
	Hostnames []string
	// Other is -1, or the Route because of which this one is rejected: an
	// HTTPRoute and a GRPCRoute must not share a host of a Listener, and the older
	// one stays, then the one whose Name sorts first.
	Other int
}

// Attachments says which Routes which Listeners take, by the rules of the
// Gateway API: kind, name and hostname. The oldest Route comes first, then the
// one whose Name sorts first, which is the order in which equal matches win.
func (c *Config) Attachments() []Attachment {
	order := make([]int, len(c.Routes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int {
		return cmp.Or(cmp.Compare(c.Routes[x].Created, c.Routes[y].Created), strings.Compare(c.Routes[x].Name, c.Routes[y].Name))
	})
	taken := make([]claims, len(c.Listeners))
	every, named := make([]int, len(c.Listeners)), make(map[string]int, len(c.Listeners))
	for n := range every {
		every[n], named[c.Listeners[n].Name] = n, n
	}
	var out []Attachment
	for _, i := range order {
		r := &c.Routes[i]
		kind := cmp.Or(r.Kind, HTTPRoute)
		for _, n := range wanted(r, every, named) {
			l := &c.Listeners[n]
			if !l.Takes(kind) {
				continue
			}
			a := Attachment{Route: i, Listener: n, Hostnames: intersecting(r.Hostnames, l.Hostname), Other: -1}
			if len(a.Hostnames) == 0 {
				continue
			}
			if kind == HTTPRoute || kind == GRPCRoute {
				a.Other = taken[n].claim(a.Hostnames, l.Hostname, kind, i)
			}
			out = append(out, a)
		}
	}
	return out
}

// wanted are the Listeners that a Route names, in their order; none: every one.
func wanted(r *Route, every []int, named map[string]int) []int {
	if len(r.Listeners) == 0 {
		return every
	}
	var out []int
	for _, name := range r.Listeners {
		if n, ok := named[name]; ok {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Takes says whether Routes of a kind fit l.
func (l *Listener) Takes(kind Kind) bool {
	switch cmp.Or(kind, HTTPRoute) {
	case HTTPRoute:
		return l.HTTP()
	case GRPCRoute:
		return l.HTTP() && l.Protocol != HTTP1
	case TLSRoute:
		return l.Protocol == TLS || l.Protocol == TCP && l.TLS != nil
	case TCPRoute:
		return l.Protocol == TCP || len(l.Asking) > 0
	}
	return false
}

// HTTP says whether l speaks HTTP.
func (l *Listener) HTTP() bool {
	return l.Protocol == "" || l.Protocol == AutoHTTP || l.Protocol == HTTP1 || l.Protocol == HTTP2
}

// intersecting are the hostnames that share a host with the listener's.
func intersecting(hostnames []string, of string) []string {
	if len(hostnames) == 0 {
		return []string{""}
	}
	var out []string
	for _, h := range hostnames {
		if (covers(h, of) || covers(of, h)) && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

// TrimWildcard takes "*." off a hostname, and says whether it was there.
func TrimWildcard(hostname string) (string, bool) { return strings.CutPrefix(hostname, "*.") }

// covers says whether every host of q is one of p. Empty: all hosts.
func covers(p, q string) bool {
	if p == "" || p == q {
		return true
	}
	name, wild := TrimWildcard(p)
	rest, _ := TrimWildcard(q)
	return wild && strings.HasSuffix(rest, "."+name)
}

// Meet is the hosts that two hostnames have in common, as a hostname; "" is all
// hosts.
func Meet(a, b string) (both string, meet bool) {
	return narrower(a, b), covers(a, b) || covers(b, a)
}

// claims are the hostnames of one Listener that Routes of each kind have taken.
type claims map[Kind]*claimed

// claimed maps names to the Route that was first.
type claimed struct {
	exact map[string]int
	wild  map[string]int // what follows "*."; "" for all hosts
	below map[string]int // names that something taken is below; "" too
}

// claim takes hostnames for a Route, unless one shares a host of the Listener
// with a Route of the other kind: then it returns that one, else -1. The
// hostnames intersect with the Listener's.
func (c *claims) claim(hostnames []string, listener string, kind Kind, route int) int {
	other := GRPCRoute
	if kind == GRPCRoute {
		other = HTTPRoute
	}
	if o := (*c)[other]; o != nil {
		for _, h := range hostnames {
			if r := o.meets(narrower(h, listener)); r >= 0 {
				return r
			}
		}
	}
	if *c == nil {
		*c = claims{}
	}
	mine := (*c)[kind]
	if mine == nil {
		mine = &claimed{map[string]int{}, map[string]int{}, map[string]int{}}
		(*c)[kind] = mine
	}
	for _, h := range hostnames {
		mine.add(narrower(h, listener), route)
	}
	return -1
}

// narrower is the intersection of two hostnames of which one covers the other.
func narrower(h, listener string) string {
	if covers(h, listener) {
		return listener
	}
	return h
}

func (c *claimed) add(hostname string, route int) {
	name, wild := TrimWildcard(hostname)
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

func first(m map[string]int, name string, route int) {
	if _, ok := m[name]; !ok {
		m[name] = route
	}
}

// parent is a name without its first label.
func parent(name string) string {
	_, rest, _ := strings.Cut(name, ".")
	return rest
}

// meets is a Route that took a hostname which shares a host with this one, or -1.
func (c *claimed) meets(hostname string) int {
	name, wild := TrimWildcard(hostname)
	here := c.exact
	if wild || name == "" {
		here = c.below
	}
	if r, ok := here[name]; ok {
		return r
	}
	for name != "" {
		name = parent(name)
		if r, ok := c.wild[name]; ok {
			return r
		}
	}
	return -1
}
