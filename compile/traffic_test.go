package compile_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"moire.dev/moire/api/load"
	"moire.dev/moire/compile"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestTraffic: what becomes of routes and of the policies that are attached to
// them, and what they are told. Each case is a file beside what comes out of it.
func TestTraffic(t *testing.T) {
	files, err := filepath.Glob("testdata/traffic/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if name == "shop" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			objects, problems := load.Files("testdata/traffic/shop.yaml", file)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			in := compile.Offline(objects.All()...)
			snaps, problems := compile.Compile(in)
			var out bytes.Buffer
			for _, p := range problems {
				p = objects.Place(p)
				p.File = filepath.Base(p.File)
				fmt.Fprintf(&out, "%s\n", p.Error())
			}
			statuses(&out, compile.StatusesOf(in))
			for _, node := range slices.Sorted(maps.Keys(snaps)) {
				tables(&out, snaps[node])
				sound(t, snaps[node])
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", out.Bytes())
		})
	}
}

func statuses(out *bytes.Buffer, s compile.Statuses) {
	say := func(object string, c compile.Condition) {
		fmt.Fprintf(out, "%s: %s=%v %s: %s\n", object, c.Type, c.True, c.Reason, c.Message)
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Routes), func(a, b compile.RouteKey) int { return strings.Compare(a.String(), b.String()) }) {
		for _, p := range s.Routes[k] {
			for _, c := range p.Conditions {
				say(fmt.Sprintf("%s at %s", k, p.Parent.Name), c)
			}
		}
	}
	for kind, all := range map[string]map[compile.Key]compile.Condition{"BackendPolicy": s.BackendPolicies} {
		for _, k := range slices.SortedFunc(maps.Keys(all), func(a, b compile.Key) int { return strings.Compare(a.String(), b.String()) }) {
			say(kind+" "+k.String(), all[k])
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.FaultPolicies), func(a, b compile.Key) int { return strings.Compare(a.String(), b.String()) }) {
		say("FaultPolicy "+k.String(), s.FaultPolicies[k])
	}
}

// tables shows the traffic of one node: of the second one only the frontends,
// which are those of two Networks.
func tables(out *bytes.Buffer, s *snapshot.Snapshot) {
	fmt.Fprintf(out, "\n== %s\n", s.Node)
	for _, k := range slices.SortedFunc(maps.Keys(s.Frontends), snapshot.FrontendKey.Compare) {
		f := s.Frontends[k]
		fmt.Fprintf(out, "%s:%d", k.Addr, k.Port)
		if k.Project != "" {
			fmt.Fprintf(out, " from %s", k.Project)
		}
		fmt.Fprintf(out, " is %s, %s", f.Service, f.Protocol)
		for _, r := range f.Routes {
			fmt.Fprintf(out, ", %s", r)
		}
		if f.Cluster != "" {
			fmt.Fprintf(out, ", else %s", f.Cluster)
		}
		fmt.Fprintf(out, " because of %s\n", f.Why)
	}
	if s.Node != "n1" {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.Routes)) {
		r := s.Routes[name]
		fmt.Fprintf(out, "%s is %s %v\n", name, r.Kind, r.Hostnames)
		for _, rule := range r.Rules {
			fmt.Fprintf(out, "  %s\n", text(rule))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Clusters)) {
		c := s.Clusters[name]
		fmt.Fprintf(out, "%s of %s and %s\n", text(c.Cluster), c.Service.Addr.IP, c.Second.Addr.IP)
	}
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// sound says whether a proxy can have it: every row by itself, and what the
// rows say of each other.
func sound(t *testing.T, s *snapshot.Snapshot) {
	t.Helper()
	for name, r := range s.Routes {
		if p := r.Validate(); len(p) > 0 || r.Name != name {
			t.Errorf("%s: route %s: %v", s.Node, name, p)
		}
		for _, rule := range r.Rules {
			for _, b := range rule.Backends {
				if c, known := s.Clusters[b.Cluster]; !known && b.Cluster != "none" {
					t.Errorf("%s: route %s sends to %s, which is not there", s.Node, name, b.Cluster)
				} else if known && (r.Kind == l7.TCPRoute || r.Kind == l7.TLSRoute) != (c.Protocol == l7.TCP) {
					t.Errorf("%s: route %s sends to %s, which speaks %s", s.Node, name, b.Cluster, c.Protocol)
				}
			}
		}
	}
	for name, c := range s.Clusters {
		if p := c.Validate(); len(p) > 0 || c.Name != name {
			t.Errorf("%s: cluster %s: %v", s.Node, name, p)
		}
		for _, k := range []snapshot.ServiceKey{c.Service, c.Second} {
			if _, known := s.Services[k]; !known && k.Addr.IP.IsValid() {
				t.Errorf("%s: cluster %s is of %v, which is not there", s.Node, name, k)
			}
		}
	}
	for k, f := range s.Frontends {
		if _, known := s.Services[k.ServiceKey]; !known {
			t.Errorf("%s: frontend %v is of no Service", s.Node, k)
		}
		if _, known := s.Clusters[f.Cluster]; f.Cluster != "" && f.Cluster != "none" && !known {
			t.Errorf("%s: frontend %v goes to %s, which is not there", s.Node, k, f.Cluster)
		}
		for _, r := range f.Routes {
			if _, known := s.Routes[r]; !known {
				t.Errorf("%s: frontend %v has route %s, which is not there", s.Node, k, r)
			}
		}
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run go test -update", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", path, got, want)
	}
}
