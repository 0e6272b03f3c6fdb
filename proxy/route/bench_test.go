package route

import (
	"fmt"
	"syscall"
	"testing"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// large is a configuration with n routes, each with a host of its own, prefixes,
// an exact path and a header match; and wildcards beside.
func large(n int) *l7.Config {
	cfg := &l7.Config{Listeners: []l7.Listener{{Name: "web", Address: "127.0.0.1:8080"}}, Clusters: []l7.Cluster{{Name: "v1"}, {Name: "v2"}}}
	for i := range n {
		to := []l7.Backend{{Cluster: "v1"}}
		hosts := []string{fmt.Sprintf("shop-%d.team-%d.example.com", i, i%97)}
		if i%10 == 0 {
			hosts = []string{fmt.Sprintf("*.team-%d.example.org", i)}
		}
		cfg.Routes = append(cfg.Routes, l7.Route{Name: fmt.Sprintf("r%d", i), Hostnames: hosts, Rules: []l7.Rule{
			{Backends: to},
			{Matches: []l7.Match{{Path: path(l7.Prefix, "/api/v1")}}, Backends: to},
			{Matches: []l7.Match{{Path: path(l7.Prefix, "/api/v1/carts"), Method: "GET"}}, Backends: to},
			{Matches: []l7.Match{{Path: path(l7.Exact, "/api/v1/health")}}, Backends: to},
			{Matches: []l7.Match{{Path: path(l7.Prefix, "/api/v1/carts"), Headers: []l7.ValueMatch{{Name: "x-version", Value: "two"}}}}, Backends: to},
		}})
	}
	return cfg
}

// onePath is a configuration whose n rules have one host and one path, and
// differ in a header.
func onePath(n int) *l7.Config {
	cfg := &l7.Config{Listeners: []l7.Listener{{Name: "web", Address: "127.0.0.1:8080"}}, Clusters: []l7.Cluster{{Name: "v1"}}}
	r := l7.Route{Name: "r"}
	for i := range n {
		r.Rules = append(r.Rules, l7.Rule{Matches: []l7.Match{{Headers: []l7.ValueMatch{{Name: "x-tenant", Value: fmt.Sprint("t", i)}}}}, Backends: []l7.Backend{{Cluster: "v1"}}})
	}
	cfg.Routes = []l7.Route{r}
	return cfg
}

func path(kind l7.MatchKind, value string) *l7.PathMatch {
	return &l7.PathMatch{Kind: kind, Value: value}
}

func head(method, host, path string, fields ...string) *message.Head {
	h := &message.Head{Method: []byte(method), Authority: []byte(host), Path: []byte(path)}
	for i := 0; i < len(fields); i += 2 {
		h.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return h
}

var benchSizes = []int{10, 100, 1000, 10000}

// typicalFields is what a browser or client library sends.
var typicalFields = []string{"user-agent", "curl/8.14.1", "accept", "*/*", "accept-encoding", "gzip", "x-request-id", "0190b8c1-7d2e-7f3a", "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "x-tenant", "t7"}

func BenchmarkMatch(b *testing.B) {
	for _, n := range benchSizes {
		t, err := Build(large(n))
		if err != nil {
			b.Fatal(err)
		}
		// Requests go to 256 of the routes in turn, so that more routes cost cache
		// misses as they do in life.
		heads := make([]*message.Head, 256)
		for i := range heads {
			k := i * 7919 % n
			host := fmt.Sprintf("shop-%d.team-%d.example.com", k, k%97)
			if k%10 == 0 {
				host = fmt.Sprintf("a.team-%d.example.org", k)
			}
			heads[i] = head("GET", host, "/api/v1/carts/42?currency=eur", typicalFields...)
		}
		b.Run(fmt.Sprint("prefix/routes=", n), func(b *testing.B) { benchHeads(b, t, heads) })
		exact := make([]*message.Head, len(heads))
		for i, h := range heads {
			exact[i] = head("GET", string(h.Authority), "/api/v1/health", typicalFields...)
		}
		b.Run(fmt.Sprint("exact/routes=", n), func(b *testing.B) { benchHeads(b, t, exact) })
	}
	for _, n := range benchSizes {
		t, err := Build(onePath(n))
		if err != nil {
			b.Fatal(err)
		}
		heads := []*message.Head{head("GET", "shop.example.com", "/api/v1/carts/42?currency=eur", typicalFields...)}
		b.Run(fmt.Sprint("header/rules=", n), func(b *testing.B) { benchHeads(b, t, heads) })
	}
}

func benchHeads(b *testing.B, t *Table, heads []*message.Head) {
	var s Scratch
	var a Arena
	b.ReportAllocs()
	before, n := cpu(), 0
	for b.Loop() {
		h := heads[n%len(heads)]
		n++
		if f := t.Match(0, h, &s, &a); f.Rule == nil {
			b.Fatal(f.Status, f.Why, string(h.Authority))
		}
	}
	b.ReportMetric(float64(cpu()-before)/float64(n), "cpu-ns/op")
}

// cpu is what this process used, so that a busy machine does not count.
func cpu() int64 {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return r.Utime.Nano() + r.Stime.Nano()
}

func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{100, 10000} {
		cfg := large(n)
		b.Run(fmt.Sprint("routes=", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Build(cfg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
