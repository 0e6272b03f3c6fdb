package route

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// generator makes configurations and requests from few words, so that they
// meet often and in many ways.
type generator struct {
	*rand.Rand
	narrow bool // few hosts and paths, so that many matches are in one place
}

func (g *generator) word(all ...string) string { return all[g.IntN(len(all))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) host() string {
	labels := make([]string, 1+g.IntN(4))
	for i := range labels {
		labels[i] = g.word("a", "b", "com")
	}
	return strings.Join(labels, ".")
}

func (g *generator) hostname() string {
	if g.chance(40) {
		return "*." + g.host()
	}
	return g.host()
}

func (g *generator) path() string {
	var b strings.Builder
	for range g.IntN(4) {
		b.WriteString("/" + g.word("x", "y", "zz"))
	}
	if b.Len() == 0 || g.chance(20) {
		b.WriteString("/")
	}
	return b.String()
}

func (g *generator) config() *l7.Config {
	g.narrow = g.chance(30)
	cfg := &l7.Config{Name: "test", Clusters: []l7.Cluster{{Name: "v", Protocol: l7.HTTP2}}}
	seen := map[string]bool{}
	for i := range 1 + g.IntN(3) {
		h := ""
		if g.chance(60) {
			h = g.hostname()
		}
		if !seen[h] {
			cfg.Listeners = append(cfg.Listeners, l7.Listener{Name: fmt.Sprint("l", i), Address: "127.0.0.1:80", Hostname: h})
		}
		seen[h] = true
	}
	grpc := g.chance(50)
	for i := range 1 + g.IntN(12) {
		r := l7.Route{Name: fmt.Sprint("r", (i*7)%13), Kind: l7.HTTPRoute, Created: int64(g.IntN(3))}
		if grpc && g.chance(50) {
			r.Kind = l7.GRPCRoute
		}
		hosts := map[string]bool{}
		for range g.IntN(4) {
			if g.narrow {
				break
			}
			if h := g.hostname(); !hosts[h] {
				hosts[h] = true
				r.Hostnames = append(r.Hostnames, h)
			}
		}
		if g.chance(30) {
			r.Listeners = []string{cfg.Listeners[g.IntN(len(cfg.Listeners))].Name}
		}
		for range 1 + g.IntN(4) {
			var rule l7.Rule
			for range g.IntN(4) {
				rule.Matches = append(rule.Matches, g.match(r.Kind))
			}
			r.Rules = append(r.Rules, rule)
		}
		cfg.Routes = append(cfg.Routes, r)
	}
	return cfg
}

func (g *generator) match(kind l7.Kind) l7.Match {
	var m l7.Match
	m.Headers = g.values("h1", "H2", "content-type")
	if kind == l7.GRPCRoute {
		if g.chance(80) {
			m.GRPC = &l7.GRPCMatch{Service: g.word("", "x", "y", "zz"), Method: g.word("", "x", "y", "zz")}
			if g.chance(30) {
				m.GRPC = &l7.GRPCMatch{Kind: l7.Regex, Service: g.word("", "x|y", ".", ".*", "z+"), Method: g.word("", "x|y", ".", ".*", "z+")}
			}
			if m.GRPC.Service == "" && m.GRPC.Method == "" {
				m.GRPC = nil
			}
		}
		return m
	}
	m.Query = g.values("q1", "Q1")
	if g.chance(30) {
		m.Method = g.word("GET", "POST")
	}
	n := g.IntN(8)
	if g.narrow {
		n = 7
	}
	switch n {
	case 0, 1:
		m.Path = &l7.PathMatch{Kind: l7.Exact, Value: g.path()}
	case 2:
		m.Path = &l7.PathMatch{Kind: l7.Regex, Value: g.word("/x.*", "/.*", "/x/[xy]", "(/zz)+", "/y|/y/x")}
	case 3, 4, 5:
		m.Path = &l7.PathMatch{Kind: l7.Prefix, Value: g.path()}
	}
	return m
}

func (g *generator) values(names ...string) (out []l7.ValueMatch) {
	for _, name := range names {
		switch {
		case g.chance(75) && !(g.narrow && g.chance(50)):
		case g.chance(20):
			out = append(out, l7.ValueMatch{Kind: l7.Regex, Name: name, Value: g.word("1|2", ".*", "1,.", "[^1]*")})
		default:
			out = append(out, l7.ValueMatch{Name: name, Value: g.word("1", "2", "1,2", "")})
		}
	}
	return out
}

// request is one in the words of the oracle, and as a head that was written in
// one of the ways that mean the same.
func (g *generator) request() (*oracleRequest, *message.Head) {
	m := &oracleRequest{method: g.word("GET", "GET", "POST"), host: g.host(), path: g.path(), headers: map[string]string{}}
	authority := m.host
	if g.chance(20) {
		authority = strings.ToUpper(authority)
	}
	authority += g.word("", "", "", ".", ":80", ".:8080")
	path := m.path
	if g.chance(20) {
		path = strings.ReplaceAll(path, "/", "//")
	}
	if g.chance(20) {
		path = strings.ReplaceAll(path, "x", "%78")
	}
	if g.chance(20) {
		path = "/q/.." + path
	}
	h := head(m.method, authority, path)
	if g.chance(40) {
		m.isGRPC = m.method == "POST"
		m.headers["content-type"] = "application/grpc"
		h.Add([]byte("content-type"), []byte("application/grpc"))
	}
	for _, name := range []string{"h1", "h2"} {
		for range max(0, g.IntN(4)-1) {
			v := g.word("1", "2", "1,2", "")
			if old, twice := m.headers[name]; twice {
				m.headers[name] = old + "," + v
			} else {
				m.headers[name] = v
			}
			h.Add([]byte(name), []byte(v))
		}
	}
	var query []string
	for range g.IntN(3) {
		query = append(query, g.word("q1", "Q1", "%71%31")+g.word("=1", "=2", "=%31", "=1%2C2", "", "="))
	}
	if len(query) > 0 {
		h.Path = append(h.Path, "?"+strings.Join(query, "&")...)
	}
	m.query, _ = url.ParseQuery(strings.Join(query, "&"))
	return m, h
}
