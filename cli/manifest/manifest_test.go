package manifest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const two = `# a comment
apiVersion: moire.dev/v1alpha1
kind: Network
metadata:
  name: front
  labels: {moire.dev/domain: acme}
spec:
  prefixes:
    - 10.0.0.0/24
    - fd00::/64
  mtu: 1400
  when: 2026-01-02
---
---
apiVersion: v1
kind: List
items:
  - apiVersion: moire.dev/v1alpha1
    kind: Policy
    metadata: {name: db, namespace: shop}
    spec:
      ingress:
        - {name: web, action: allow}
        - name: other
          action: deny
`

func TestParse(t *testing.T) {
	docs, err := Parse("f.yaml", []byte(two))
	if err != nil || len(docs) != 2 {
		t.Fatal(docs, err)
	}
	if docs[0].String() != "Network front" || docs[1].String() != "Policy shop/db" {
		t.Error(docs[0], docs[1])
	}
	for _, c := range []struct {
		doc   int
		field string
		line  int
	}{
		{0, "", 2}, {0, "spec.prefixes[1]", 10}, {0, ".spec.prefixes[0]", 9}, {0, "spec.prefixes[7]", 8},
		{0, "metadata.labels[moire.dev/domain]", 6}, {0, "spec.absent.deep", 7}, {0, "absent", 2}, {0, "spec.mtu.x", 11},
		{1, "spec.ingress[1].action", 25}, {1, "spec.ingress[0].action", 23}, {1, "metadata.namespace", 20}, {1, "", 18},
		{1, `spec.ingress[name="web"].action`, 22},
	} {
		if got := docs[c.doc].LineOf(c.field); got != c.line {
			t.Errorf("%s %s: line %d, want %d", docs[c.doc], c.field, got, c.line)
		}
	}
	body, err := docs[0].JSON()
	if err != nil || !strings.Contains(string(body), `"when":"2026-01-02"`) || !strings.Contains(string(body), `"mtu":1400`) {
		t.Error(string(body), err)
	}
	docs[0].SetNamespace("shop")
	if docs[0].String() != "Network shop/front" {
		t.Error(docs[0])
	}
}

func TestParseRefuses(t *testing.T) {
	head := "apiVersion: v1\nkind: X\nmetadata: {name: a}\n"
	for text, want := range map[string]string{
		"a: [":                                   "f:1: ",
		"- 1":                                    "f:1: this is not an object",
		"kind: X":                                "f:1: apiVersion is missing",
		"apiVersion: v1":                         "f:1: kind is missing",
		"apiVersion: v1\nkind: X":                "f:1: X: metadata.name is missing",
		head + "a: 1\na: 2":                      "f:5: ",
		head + "a: !!binary aGk=":                "f:4: values of type !!binary",
		head + "a: .nan":                         "f:4: not a number",
		head + "a: 99999999999999999999999999":   "",
		head + "b: &b {c: 1}\na:\n  <<: *b":      "f:6: merge keys",
		head + "? [x]\n: 1":                      "f:4: ",
		"apiVersion: v1\nkind: List\nitems: [1]": "f:3: items[0] is not an object",
		head + "a: " + strings.Repeat("[", 100) + strings.Repeat("]", 100): "f:4: nested too deeply",
	} {
		_, err := Parse("f", []byte(text))
		if want == "" {
			continue // a float; only it must not panic
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A few lines of aliases must not become gigabytes.
func TestAliasesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: X\nmetadata: {name: a}\nx0: &x0 [1,1,1,1,1,1,1,1,1,1]\n")
	for i := range 9 {
		name, last := string(rune('b'+i)), string(rune('a'+i))
		if i == 0 {
			last = "x0"
		}
		b.WriteString("y" + name + ": &" + name + " [" + strings.Repeat("*"+last+",", 10) + "]\n")
	}
	if _, err := Parse("f", []byte(b.String())); err == nil {
		t.Error("a thousand million values were accepted")
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yaml", "a.yml", "c.json", "d.txt", "sub/e.yaml", "empty/x.txt"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(names ...string) (out []string) {
		for _, n := range names {
			out = append(out, filepath.Join(dir, n))
		}
		return out
	}
	for _, c := range []struct {
		path      string
		recursive bool
		want      []string
	}{
		{dir, false, at("a.yml", "b.yaml", "c.json")},
		{dir, true, at("a.yml", "b.yaml", "c.json", "sub/e.yaml")},
		{filepath.Join(dir, "d.txt"), false, at("d.txt")},
		{Stdin, false, []string{Stdin}},
		{filepath.Join(dir, "empty"), true, nil},
		{filepath.Join(dir, "absent"), false, nil},
	} {
		got, err := Files([]string{c.path}, c.recursive)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s: %v %v", c.path, got, err)
		}
	}
}

func TestReadStdin(t *testing.T) {
	docs, err := Read([]string{Stdin}, strings.NewReader(two))
	if err != nil || len(docs) != 2 || docs[0].File != "stdin" {
		t.Error(docs, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(two, "spec.prefixes[1]")
	f.Add("apiVersion: v1\nkind: X\nmetadata: &m {name: a}\nspec: *m", "spec.name")
	f.Add("{apiVersion: v1, kind: List, items: [{}]}", "a[b].c]")
	f.Fuzz(func(t *testing.T, text, field string) {
		docs, err := Parse("f", []byte(text))
		if err != nil {
			return
		}
		lines := strings.Count(text, "\n") + 1
		for _, d := range docs {
			if _, err := d.JSON(); err != nil {
				t.Fatal(err)
			}
			if !json.Valid([]byte(must(d.JSON()))) {
				t.Fatal("not JSON")
			}
			if l := d.LineOf(field); l < 1 || l > lines+1 {
				t.Fatalf("line %d of %d", l, lines)
			}
		}
	})
}

func must(b []byte, _ error) []byte { return b }
