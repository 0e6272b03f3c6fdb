package analyze_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/analyze"
	"moire.dev/moire/api/load"
)

var update = flag.Bool("update", false, "write the golden files anew")

// intent reads everything that is wrong in testdata.
func intent(t *testing.T) (*load.Objects, []runtime.Object) {
	t.Helper()
	objects, problems := load.FS(os.DirFS("testdata"), "intent")
	for _, p := range problems {
		if !p.Warning {
			t.Fatal(p.Error())
		}
	}
	return objects, objects.All()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
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

// TestFindings: what is said of everything that is wrong, word for word.
func TestFindings(t *testing.T) {
	objects, all := intent(t)
	found := analyze.Run(all...)
	analyze.Place(found, objects.Where)
	var text, asJSON, sarif bytes.Buffer
	for _, err := range []error{analyze.Text(&text, found), analyze.JSON(&asJSON, found), analyze.SARIF(&sarif, found, "1.2.3")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "findings.txt", text.Bytes())
	golden(t, "findings.json", asJSON.Bytes())
	golden(t, "findings.sarif", sarif.Bytes())
}

// TestEveryCodeIsShown: each code has an example in testdata and a line in the
// documentation.
func TestEveryCodeIsShown(t *testing.T) {
	_, all := intent(t)
	found := analyze.Run(all...)
	docs, err := os.ReadFile("../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	var sarif bytes.Buffer
	if err := analyze.SARIF(&sarif, nil, ""); err != nil {
		t.Fatal(err)
	}
	var log struct {
		Runs []struct {
			Tool struct {
				Driver struct{ Rules []struct{ ID string } }
			}
		}
	}
	if err := json.Unmarshal(sarif.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	for _, r := range log.Runs[0].Tool.Driver.Rules {
		shown := slices.ContainsFunc(found, func(f analyze.Finding) bool { return f.Code == r.ID })
		if unwritten := r.ID == analyze.CodeTooMany; !shown && !unwritten {
			t.Errorf("nothing in testdata has %s", r.ID)
		}
		if !strings.Contains(string(docs), "| "+r.ID+" |") {
			t.Errorf("docs/problems.md does not explain %s", r.ID)
		}
	}
}

// TestAnyOrder: the order of the objects does not matter.
func TestAnyOrder(t *testing.T) {
	_, all := intent(t)
	var want, got bytes.Buffer
	if err := analyze.JSON(&want, analyze.Run(all...)); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(all)
	if err := analyze.JSON(&got, analyze.Run(all...)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("reversed:\n%s\nwant\n%s", got.Bytes(), want.Bytes())
	}
}

// TestNothingToSay: good intent has no findings.
func TestNothingToSay(t *testing.T) {
	objects, problems := load.FS(os.DirFS("../examples"), "demo")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, f := range analyze.Run(objects.All()...) {
		t.Error(f)
	}
	if f := analyze.Run(); len(f) > 0 || analyze.Fails(f) {
		t.Errorf("of nothing: %v", f)
	}
}

// TestGuests: a Network of another project is named as project/network, and one
// of the own project with its name is another one.
func TestGuests(t *testing.T) {
	const text = `
{apiVersion: moire.dev/v1alpha1, kind: Domain, metadata: {name: red}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {moire.dev/domain: red}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: store, labels: {moire.dev/domain: red}}}
---
{apiVersion: moire.dev/v1alpha1, kind: Network, metadata: {name: main, namespace: shop}, spec: {prefixes: [10.0.0.0/24]}}
---
{apiVersion: moire.dev/v1alpha1, kind: Network, metadata: {name: main, namespace: store}, spec: {prefixes: [10.1.0.0/24], consents: [{project: shop, for: [attach]}]}}
---
{apiVersion: moire.dev/v1alpha1, kind: Workload, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {interfaces: [{network: store/main}]}}
---
{apiVersion: moire.dev/v1alpha1, kind: Workload, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {interfaces: [{network: store/main}]}}
---
{apiVersion: moire.dev/v1alpha1, kind: Policy, metadata: {name: there, namespace: shop}, spec: {subject: {networks: [store/main]}, ingress: [{action: allow, from: [{network: store/main, labels: {matchLabels: {app: db}}}]}]}}
---
{apiVersion: moire.dev/v1alpha1, kind: Policy, metadata: {name: here, namespace: shop}, spec: {subject: {networks: [main]}, ingress: []}}
`
	objects, problems := load.Loader{}.Bytes("guests.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	found := analyze.Run(objects.All()...)
	if len(found) != 1 || found[0].Code != analyze.CodeIdle || found[0].Object != "Policy shop/here" {
		t.Errorf("found %v", found)
	}
}

// TestSARIFShape: what the standard requires of a log, by section of SARIF
// 2.1.0.
func TestSARIFShape(t *testing.T) {
	objects, all := intent(t)
	found := analyze.Run(all...)
	analyze.Place(found, objects.Where)
	found[0].File = "/etc/a file.yaml"
	var b bytes.Buffer
	if err := analyze.SARIF(&b, found, "1"); err != nil {
		t.Fatal(err)
	}
	var log map[string]any
	if err := json.Unmarshal(b.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	need(t, log, "version", "2.1.0") // 3.13.2
	run := list(t, log, "runs")[0]   // 3.13.4
	driver := object(t, object(t, run, "tool"), "driver")
	need(t, driver, "name", "moire analyze") // 3.19.8
	rules := list(t, driver, "rules")
	ids := map[string]bool{}
	for _, r := range rules {
		id, _ := r["id"].(string) // 3.49.3, unique: 3.19.23
		if id == "" || ids[id] {
			t.Errorf("rule id %q", id)
		}
		ids[id] = true
		need(t, object(t, r, "shortDescription"), "text", nil) // 3.12.3
	}
	for i, r := range list(t, run, "results") {
		index := int(r["ruleIndex"].(float64)) // 3.27.6
		if rules[index]["id"] != r["ruleId"] { // 3.27.5
			t.Errorf("result %d: ruleIndex %d is not %v", i, index, r["ruleId"])
		}
		if !slices.Contains([]any{"none", "note", "warning", "error"}, r["level"]) { // 3.27.10
			t.Errorf("result %d: level %v", i, r["level"])
		}
		need(t, object(t, r, "message"), "text", nil) // 3.27.11
		at := list(t, r, "locations")[0]
		physical := object(t, at, "physicalLocation")
		uri, _ := object(t, physical, "artifactLocation")["uri"].(string) // 3.4.3
		if want := "intent/"; i == 0 && uri != "file:///etc/a%20file.yaml" || i > 0 && !strings.HasPrefix(uri, want) {
			t.Errorf("result %d: uri %q", i, uri)
		}
		if line, _ := object(t, physical, "region")["startLine"].(float64); line < 1 { // 3.30.5
			t.Errorf("result %d: line %v", i, line)
		}
	}
}

func object(t *testing.T, of map[string]any, name string) map[string]any {
	t.Helper()
	o, ok := of[name].(map[string]any)
	if !ok {
		t.Fatalf("%s is %T, want an object", name, of[name])
	}
	return o
}

func list(t *testing.T, of map[string]any, name string) []map[string]any {
	t.Helper()
	l, _ := of[name].([]any)
	var out []map[string]any
	for _, x := range l {
		out = append(out, x.(map[string]any))
	}
	if len(out) == 0 {
		t.Fatalf("%s is %v, want a list", name, of[name])
	}
	return out
}

func need(t *testing.T, of map[string]any, name string, want any) {
	t.Helper()
	if got := of[name]; got == nil || got == "" || want != nil && got != want {
		t.Errorf("%s is %v, want %v", name, got, want)
	}
}
