package route

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// read builds a Table from YAML; clusters v1 to v3 are there, and one listener
// "web" unless the text has its own.
func read(t testing.TB, text string) *Table {
	t.Helper()
	table, err := Build(readConfig(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func readConfig(t testing.TB, text string) *l7.Config {
	t.Helper()
	cfg := &l7.Config{Name: "test"}
	if err := yaml.UnmarshalStrict([]byte(text), cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Listeners == nil {
		cfg.Listeners = []l7.Listener{{Name: "web", Address: "127.0.0.1:80"}}
	}
	if cfg.Clusters == nil {
		for _, name := range []string{"v1", "v2", "v3"} {
			c := l7.Cluster{Name: name, Endpoints: []l7.Endpoint{{Address: "127.0.0.1:1"}}}
			for i := range cfg.Routes {
				switch cfg.Routes[i].Kind {
				case l7.GRPCRoute:
					c.Protocol = l7.HTTP2
				case l7.TLSRoute, l7.TCPRoute:
					c.Protocol = l7.TCP
				}
			}
			cfg.Clusters = append(cfg.Clusters, c)
		}
	}
	for i, r := range cfg.Routes {
		if r.Name == "" {
			cfg.Routes[i].Name = string(rune('a' + i))
		}
	}
	return cfg
}

// ask is a request and where it goes: v1 to v3, 404, 400, or "rule" and its
// name. Fields are "name: value", with "method: X" for the method.
type ask struct {
	target string // host/path
	fields string
	want   string
}

func requestOf(a ask) *message.Head {
	host, path, _ := strings.Cut(a.target, "/")
	h := &message.Head{Method: []byte("GET"), Authority: []byte(host), Path: []byte("/" + path)}
	if a.fields == "" {
		return h
	}
	for _, f := range strings.Split(a.fields, "; ") {
		name, value, _ := strings.Cut(f, ": ")
		if name == "method" {
			h.Method = []byte(value)
			continue
		}
		h.Add([]byte(name), []byte(value))
	}
	return h
}

// goes says where a request goes, in the words of ask.want.
func goes(table *Table, cfg *l7.Config, listener int, h *message.Head) string {
	var s Scratch
	var a Arena
	f := table.Match(listener, h, &s, &a)
	switch {
	case f.Status == 404:
		return "404"
	case f.Status != 0:
		return "400"
	}
	n := f.Rule.Pick(0)
	if n == None {
		return "rule " + f.Rule.Name
	}
	if f.Rule.Backends[n].Cluster == Invalid {
		return "500"
	}
	return cfg.Clusters[f.Rule.Backends[n].Cluster].Name
}

func expect(t *testing.T, text string, listener int, asks []ask) {
	t.Helper()
	cfg := readConfig(t, text)
	table, err := Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range asks {
		if got := goes(table, cfg, listener, requestOf(a)); got != a.want {
			t.Errorf("%s %s goes to %s, want %s", a.target, a.fields, got, a.want)
		}
	}
}
