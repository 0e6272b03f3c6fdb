package node

import (
	"log/slog"
	"strings"
	"testing"

	"moire.dev/moire/node/proxies"
)

func TestAilment(t *testing.T) {
	well := proxies.Status{Name: "n1", Up: true, Last: "replaced"}
	for _, tt := range []struct {
		name string
		all  []proxies.Status
		want string
	}{
		{"none", nil, ""},
		{"well", []proxies.Status{well}, ""},
		{"gone", []proxies.Status{well, {Name: "n1-a", Error: "it is not there", Last: "exit status 2"}}, "proxy n1-a: it is not there; the last one ended: exit status 2"},
		{"refuses", []proxies.Status{{Name: "n1", Up: true, Error: "it refuses its configuration: no", Last: "replaced"}}, "proxy n1: it refuses its configuration: no"},
		{"leaves out", []proxies.Status{{Name: "n1", Up: true, LeftOut: []string{"a", "b", "c", "d"}}},
			"proxy n1: it leaves out a; proxy n1: it leaves out b; proxy n1: it leaves out c; and 1 more; 'moire proxy' lists them"},
	} {
		if got := ailment(tt.all); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	long := ailment([]proxies.Status{{Name: "n1", Error: strings.Repeat("ä", ailsLength)}})
	if len(long) > ailsLength+1 || !strings.HasSuffix(long, "?") && !strings.HasSuffix(long, "ä") {
		t.Errorf("a text of %d bytes that ends in %q", len(long), long[len(long)-4:])
	}
}

// TestAilsAfterAWhile: a proxy that is replaced is nobody's trouble.
func TestAilsAfterAWhile(t *testing.T) {
	all, err := proxies.New(proxies.Options{Node: "n1", Dir: t.TempDir(), Logs: t.TempDir(), Cgroup: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := all.Need(map[string]bool{"n1": true}); err != nil { // it is never started
		t.Fatal(err)
	}
	p := &proxying{proxies: all}
	if got := p.ails(); got != "" {
		t.Errorf("at once: %q", got)
	}
	if p.ailing.IsZero() {
		t.Fatal("a proxy that is not there is no trouble")
	}
	p.ailing = p.ailing.Add(-ailGrace)
	if got := p.ails(); !strings.Contains(got, "it is not there") {
		t.Errorf("after %s: %q", ailGrace, got)
	}
}
