package compile_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"maps"
	"math/big"
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
			in.Secrets = secrets(t)
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
	byName := func(a, b compile.Key) int { return strings.Compare(a.String(), b.String()) }
	for _, k := range slices.SortedFunc(maps.Keys(s.BackendPolicies), byName) {
		say("BackendPolicy "+k.String(), s.BackendPolicies[k])
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.FaultPolicies), byName) {
		say("FaultPolicy "+k.String(), s.FaultPolicies[k])
	}
	for _, name := range slices.Sorted(maps.Keys(s.Classes)) {
		say("GatewayClass "+name, s.Classes[name])
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Gateways), byName) {
		g := s.Gateways[k]
		fmt.Fprintf(out, "Gateway %s at %v\n", k, g.Addresses)
		for _, c := range g.Conditions {
			say("Gateway "+k.String(), c)
		}
		for _, l := range g.Listeners {
			fmt.Fprintf(out, "  %s takes %v, has %d\n", l.Name, l.Kinds, l.Attached)
			for _, c := range l.Conditions {
				say("  "+l.Name, c)
			}
		}
	}
}

// secrets that Gateways of the cases may name.
func secrets(t *testing.T) map[compile.Key]*compile.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.example.com"}}
	chain, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	cert := &compile.Secret{Chain: "from \xff somebody\n" + text("CERTIFICATE", chain), Key: text("PRIVATE KEY", der)}
	return map[compile.Key]*compile.Secret{{Project: "shop", Name: "cert"}: cert, {Project: "bank", Name: "cert"}: cert, {Project: "shop", Name: "broken"}: {Chain: cert.Chain, Key: "broken"}}
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
	for _, k := range slices.SortedFunc(maps.Keys(s.Gateways), snapshot.GatewayKey.Compare) {
		g := s.Gateways[k]
		fmt.Fprintf(out, "runs %s/%s as %s in %s, account %s, labels %v\n", k.Project, k.Name, g.Attachment.Workload, g.Attachment.Network, g.Account, g.Labels)
		for _, l := range g.Listeners {
			fmt.Fprintf(out, "  %s with routes %v\n", text(l.Listener), l.Routes)
		}
		for _, c := range g.Certificates {
			fmt.Fprintf(out, "  has %s\n", c.Name)
		}
	}
	if s.Node != "n1" && len(s.Gateways) == 0 {
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
	for _, g := range s.Gateways {
		if p := g.Validate(); len(p) > 0 {
			t.Errorf("%s: gateway %v: %v", s.Node, g, p)
		}
		for _, l := range g.Listeners {
			for _, name := range l.Routes {
				if r, known := s.Routes[name]; !known || !l.Takes(r.Kind) {
					t.Errorf("%s: listener %s has route %s, which it cannot have", s.Node, l.Name, name)
				}
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
