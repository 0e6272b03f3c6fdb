package route

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"moire.dev/moire/snapshot/l7"
)

// The oracle says where a request goes by looking at every match of every rule
// and comparing by the precedence that the Gateway API names, in its order.

// hostMeets says whether a hostname takes a host; empty: all.
func hostMeets(hostname, host string) bool {
	if rest, wild := strings.CutPrefix(hostname, "*"); wild {
		return strings.HasSuffix(host, rest) && host != rest
	}
	return hostname == "" || hostname == host
}

// overlap says whether two hostnames share a host, by trying hosts.
func overlap(a, b string) bool {
	try := func(h string) string { return strings.Replace(h, "*", "zz.zz.zz", 1) }
	switch {
	case a == "" || b == "":
		return true
	case a[0] != '*':
		return hostMeets(b, a)
	case b[0] != '*':
		return hostMeets(a, b)
	}
	return hostMeets(a, try(b)) || hostMeets(b, try(a))
}

func overlap3(a, b, c string) bool { return overlap(a, b) && overlap(b, c) && overlap(a, c) }

func orAll(hostnames []string) []string {
	if len(hostnames) == 0 {
		return []string{""}
	}
	return hostnames
}

// attached are the routes that a listener takes, the oldest first.
func attached(cfg *l7.Config, l *l7.Listener) []int {
	var order, out []int
	for i := range cfg.Routes {
		order = append(order, i)
	}
	slices.SortFunc(order, func(x, y int) int {
		return cmp.Or(cmp.Compare(cfg.Routes[x].Created, cfg.Routes[y].Created), cmp.Compare(cfg.Routes[x].Name, cfg.Routes[y].Name))
	})
	for _, i := range order {
		r := &cfg.Routes[i]
		if len(r.Listeners) > 0 && !slices.Contains(r.Listeners, l.Name) {
			continue
		}
		conflict := false
		for _, j := range out {
			o := &cfg.Routes[j]
			for _, h := range orAll(r.Hostnames) {
				for _, g := range orAll(o.Hostnames) {
					conflict = conflict || r.Kind != o.Kind && overlap3(h, g, l.Hostname)
				}
			}
		}
		if !conflict {
			out = append(out, i)
		}
	}
	return out
}

// score is compared part by part; more is better.
type score []int

func (m *oracleRequest) score(r *l7.Route, x *l7.Match, hostname string) (score, bool) {
	var s score
	if !hostMeets(hostname, m.host) {
		return nil, false
	}
	if hostname != "" && hostname[0] != '*' {
		s = append(s, len(hostname))
	} else {
		s = append(s, 0)
	}
	s = append(s, len(hostname))
	ok := true
	if r.Kind == l7.GRPCRoute {
		s, ok = m.grpc(s, x.GRPC)
	} else {
		s, ok = m.http(s, x)
	}
	if !ok || !m.values(x.Headers, func(name string) (string, bool) { v, ok := m.headers[strings.ToLower(name)]; return v, ok }) ||
		!m.values(x.Query, func(name string) (string, bool) { v, ok := m.query[name]; return first(v), ok }) {
		return nil, false
	}
	return append(s, len(x.Headers), len(x.Query)), true
}

func first(v []string) string {
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

func whole(pattern, s string) bool {
	return regexp.MustCompile(`\A(?:` + pattern + `)\z`).MatchString(s)
}

func (m *oracleRequest) http(s score, x *l7.Match) (score, bool) {
	p := x.Path
	if p == nil {
		p = &l7.PathMatch{Kind: l7.Prefix, Value: "/"}
	}
	switch p.Kind {
	case l7.Regex:
		s = append(s, 1, len(p.Value))
		if !whole(p.Value, m.path) {
			return nil, false
		}
	case l7.Prefix:
		want := strings.Split(strings.Trim(p.Value, "/"), "/")
		have := strings.Split(strings.TrimPrefix(m.path, "/"), "/")
		if p.Value == "/" {
			want = nil
		}
		if len(have) < len(want) || !slices.Equal(have[:len(want)], want) {
			return nil, false
		}
		s = append(s, 0, len(strings.TrimSuffix(p.Value, "/")))
	default:
		if p.Value != m.path {
			return nil, false
		}
		s = append(s, 2, 0)
	}
	if x.Method == "" {
		return append(s, 0), true
	}
	return append(s, 1), x.Method == m.method
}

// grpc: an exact name before a pattern before none, for service, then method.
func (m *oracleRequest) grpc(s score, g *l7.GRPCMatch) (score, bool) {
	parts := strings.Split(m.path, "/")
	if !m.isGRPC || len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return nil, false
	}
	if g == nil {
		return append(s, 0, 0, 0, 0), true
	}
	for i, want := range []string{g.Service, g.Method} {
		switch {
		case want == "":
			s = append(s, 0, 0)
		case g.Kind == l7.Regex:
			s = append(s, 1, len(want))
			if !whole(want, parts[i+1]) {
				return nil, false
			}
		default:
			s = append(s, 2, 0)
			if want != parts[i+1] {
				return nil, false
			}
		}
	}
	return s, true
}

func (m *oracleRequest) values(all []l7.ValueMatch, get func(string) (string, bool)) bool {
	for _, x := range all {
		v, ok := get(x.Name)
		if !ok || x.Kind == l7.Regex && !whole(x.Value, v) || x.Kind != l7.Regex && v != x.Value {
			return false
		}
	}
	return true
}

// oracleRequest is a request in the words of the oracle.
type oracleRequest struct {
	method, host, path string
	headers            map[string]string
	query              url.Values
	isGRPC             bool
}

// oracle is "route/rule" of the best match, or empty.
func oracle(cfg *l7.Config, taken [][]int, m *oracleRequest) string {
	at, most := -1, -1
	for i := range cfg.Listeners {
		if h := cfg.Listeners[i].Hostname; hostMeets(h, m.host) {
			n := len(h)
			if h != "" && h[0] != '*' {
				n += 1000
			}
			if n > most {
				at, most = i, n
			}
		}
	}
	if at < 0 {
		return ""
	}
	found, best := "", score(nil)
	for _, i := range taken[at] {
		r := &cfg.Routes[i]
		for j := range r.Rules {
			matches := r.Rules[j].Matches
			if len(matches) == 0 {
				matches = []l7.Match{{}}
			}
			for k := range matches {
				for _, h := range orAll(r.Hostnames) {
					if s, ok := m.score(r, &matches[k], h); ok && (best == nil || slices.Compare(s, best) > 0) {
						found, best = fmt.Sprintf("%s/%d", r.Name, j), s
					}
				}
			}
		}
	}
	return found
}

func TestOracle(t *testing.T) {
	configs, requests := 150, 200
	if testing.Short() {
		configs = 30
	}
	matched := 0
	for n := range configs {
		g := &generator{Rand: rand.New(rand.NewPCG(uint64(n), 7))}
		cfg := g.config()
		taken := make([][]int, len(cfg.Listeners))
		for i := range cfg.Listeners {
			taken[i] = attached(cfg, &cfg.Listeners[i])
		}
		table, err := build(cfg, []int{0, 2, crowd}[n%3])
		if err != nil {
			t.Fatal(err)
		}
		var s Scratch
		var a Arena
		for range requests {
			m, h := g.request()
			want := oracle(cfg, taken, m)
			got := ""
			if f := table.Match(g.IntN(len(cfg.Listeners)), h, &s, &a); f.Rule != nil {
				got = f.Rule.Route.Name + "/" + f.Rule.Name
				matched++
			} else if f.Status != 404 {
				t.Fatalf("status %d (%s) for %s %s", f.Status, f.Why, h.Authority, h.Path)
			}
			if got != want {
				t.Fatalf("configuration %d: %s %s%s %q goes to %q, want %q", n, h.Method, h.Authority, h.Path, fieldsOf(h), got, want)
			}
		}
	}
	if all := configs * requests; matched < all/5 || matched > all*19/20 {
		t.Errorf("%d of %d requests found a rule: the generator is one-sided", matched, all)
	}
}
