package load_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"moire.dev/moire/api/load"
	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/policy"
)

const good = `# a comment
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {moire.dev/domain: red}}
spec: {finalizers: [kubernetes]}
---
---
apiVersion: v1
kind: List
items:
- apiVersion: moire.dev/v1alpha1
  kind: Domain
  metadata: {name: red}
- apiVersion: moire.dev/v1alpha1
  kind: Network
  metadata: {namespace: shop, name: main, creationTimestamp: null}
  spec:
    prefixes:
    - 10.0.0.0/24
    - fd00::/64
---
apiVersion: moire.dev/v1alpha1
kind: Policy
metadata: {namespace: shop, name: db}
spec:
  ingress: []
  egress:
  - action: allow
    ports:
    - port: 53
  - name: web
    action: deny
`

func TestGood(t *testing.T) {
	o, problems := load.Loader{}.Bytes("good.yaml", []byte(good))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if len(o.Items) != 4 || len(o.All()) != 4 || o.Domains["red"] == nil || o.Namespaces["shop"].Labels[v1alpha1.DomainLabel] != "red" {
		t.Fatalf("%+v", o)
	}
	n, p := o.Networks["shop/main"], o.Policies["shop/db"]
	if n.Spec.Default != "open" || p.Spec.Tier != "project" || p.Spec.Priority != 100 || p.Spec.Mode != "enforce" || p.Spec.Egress[0].Ports[0].Protocol != "TCP" {
		t.Errorf("not defaulted: %+v %+v", n.Spec, p.Spec)
	}
	if p.Spec.Ingress == nil || len(p.Spec.Ingress) != 0 {
		t.Errorf("an empty list became %#v", p.Spec.Ingress)
	}
	for field, line := range map[string]int{"": 14, "spec.prefixes[1]": 20, "spec.prefixes[7]": 18, "spec.mtu": 17, "nonsense[3].x": 14} {
		if _, got, ok := o.Where("Network shop/main", field); !ok || got != line {
			t.Errorf("%q is on line %d, want %d", field, got, line)
		}
	}
	if _, _, ok := o.Where("Network shop/none", ""); ok {
		t.Error("an unknown object has a place")
	}
	for id, line := range map[policy.RuleID]int{
		"policy/shop/db/egress/0": 28, "policy/shop/db/egress/web": 31, "policy/shop/db/ingress/0": 26, "default/shop/main/open": 17,
		"policy/shop/none/egress/0": 0, "isolated/shop/egress": 0, "closed/no-route": 0,
	} {
		if _, got := o.Origin(id); got != line {
			t.Errorf("%s comes from line %d, want %d", id, got, line)
		}
	}
}

func TestOneProjectForAll(t *testing.T) {
	text := "apiVersion: moire.dev/v1alpha1\nkind: Network\nmetadata: {name: main}\nspec: {prefixes: [10.0.0.0/24]}\n"
	o, problems := load.Loader{Project: "shop"}.Bytes("x.yaml", []byte(text))
	if len(problems) > 0 || o.Networks["shop/main"] == nil {
		t.Fatal(problems, o)
	}
}

func TestDirectories(t *testing.T) {
	domain := func(name string) []byte {
		return fmt.Appendf(nil, "apiVersion: moire.dev/v1alpha1\nkind: Domain\nmetadata: {name: %s}\n", name)
	}
	fsys := fstest.MapFS{
		"b.yaml": {Data: domain("b")}, "a.yml": {Data: domain("a")}, "c.json": {Data: []byte(`{"apiVersion":"moire.dev/v1alpha1","kind":"Domain","metadata":{"name":"c"}}`)},
		"README.md": {Data: []byte("{")}, "deep/d.yaml": {Data: domain("d")}, "deep/again.yaml": {Data: domain("a")},
	}
	names := func(o *load.Objects) string {
		var out []string
		for _, it := range o.Items {
			out = append(out, it.ID)
		}
		return strings.Join(out, ", ")
	}
	o, problems := load.FS(fsys)
	if got := names(o); got != "Domain a, Domain b, Domain c" || len(problems) > 0 {
		t.Errorf("got %s %v", got, problems)
	}
	o, problems = load.Loader{Recursive: true}.FS(fsys)
	if got := names(o); got != "Domain a, Domain b, Domain c, Domain d" || len(problems) != 1 || problems[0].Code != v1alpha1.CodeTwice {
		t.Errorf("got %s %v", got, problems)
	}
	dir := t.TempDir()
	for _, name := range []string{"two.yaml", "one.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), domain(strings.TrimSuffix(name, ".yaml")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o, problems = load.Files(dir, filepath.Join(dir, "none.yaml"))
	if got := names(o); got != "Domain one, Domain two" || len(problems) != 1 || problems[0].Code != v1alpha1.CodeUnreadable {
		t.Errorf("got %s %v", got, problems)
	}
}

// TestLimits: what is too deep, too long or too many is told, soon.
func TestLimits(t *testing.T) {
	head := "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\nspec: "
	bomb := head + "{a0: &a0 [x,x,x,x,x,x,x,x,x,x]"
	for i := 1; i < 12; i++ {
		bomb += fmt.Sprintf(", a%d: &a%d [%s]", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	bad := "apiVersion: moire.dev/v1alpha1\nkind: Network\nmetadata: {name: x, namespace: y}\nspec:\n"
	for i := range 1000 {
		bad += fmt.Sprintf("  f%d: 1\n", i)
	}
	for name, c := range map[string]struct {
		text, code string
		most       int
	}{
		"aliases":  {bomb + "}\n", v1alpha1.CodeTooMuch, 1},
		"itself":   {head + "&a [*a]\n", "", 1},
		"deep":     {head + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "\n", v1alpha1.CodeTooMuch, 1},
		"large":    {strings.Repeat("#", 17<<20), v1alpha1.CodeTooMuch, 1},
		"many":     {head + "[" + strings.Repeat("1,", 1<<20) + "1]", v1alpha1.CodeTooMuch, 1},
		"problems": {bad, v1alpha1.CodeUnknownField, 100},
		"long":     {"kind: " + strings.Repeat("x", 1<<20) + "\n", v1alpha1.CodeUnknownKind, 1},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			o, problems := load.Loader{}.Bytes("x.yaml", []byte(c.text))
			if len(problems) == 0 || len(problems) > c.most || c.code != "" && problems[0].Code != c.code || len(o.Items) > 0 {
				t.Errorf("%d problems, first %.300v, %d objects", len(problems), problems[0], len(o.Items))
			}
			for _, p := range problems {
				if len(p.Error()) > 1000 {
					t.Errorf("a Problem of %d bytes", len(p.Error()))
				}
			}
			t.Log(time.Since(begin))
		})
	}
}

// FuzzLoad: whatever the bytes, no panic, and every Problem has its place.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? [x]\n: {<<: *y}\n"))
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o, problems := load.Loader{}.Bytes("x.yaml", text)
		lines := strings.Count(string(text), "\n") + strings.Count(string(text), "\r") + strings.Count(string(text), "\u0085") + strings.Count(string(text), "\u2028") + strings.Count(string(text), "\u2029") + 1
		for _, p := range problems {
			if p.File != "x.yaml" || p.Line < 1 || p.Line > lines+1 || p.Code == "" || p.Reason == "" {
				t.Fatalf("Problem %+v in %d lines", p, lines)
			}
		}
		for _, it := range o.Items {
			if it.Line < 1 || it.Line > lines+1 || it.Object == nil || len(it.JSON) == 0 {
				t.Fatalf("item %+v", it)
			}
			again, problems := load.Loader{}.Bytes("x.json", it.JSON)
			for _, p := range problems {
				if !p.Warning {
					t.Fatalf("what was loaded does not load again: %s\n%s", p.Error(), it.JSON)
				}
			}
			if len(again.Items) != 1 || again.Items[0].ID != it.ID {
				t.Fatalf("%s became %d objects", it.ID, len(again.Items))
			}
		}
	})
}
