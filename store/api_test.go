package store

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write golden files anew")

// TestRejected applies every wrong object of testdata/rejected.txtar.
func TestRejected(t *testing.T) {
	file := filepath.Join("testdata", "rejected.txtar")
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ns := project(t)
	golden := map[string]string{}
	for _, f := range a.Files {
		if name, ok := strings.CutSuffix(f.Name, ".txt"); ok {
			golden[name] = string(f.Data)
		}
	}
	fresh := &txtar.Archive{Comment: a.Comment}
	var said strings.Builder
	for _, f := range a.Files {
		name, ok := strings.CutSuffix(f.Name, ".yaml")
		if !ok {
			continue
		}
		out, errs, err := kubectlWith(t, shared.kubeconfig, string(f.Data), "create", "-n", ns, "-f", "-")
		if err == nil {
			t.Errorf("%s was accepted: %s", name, out)
			continue
		}
		errs = inOrder(errs)
		said.WriteString(errs)
		if !*update && errs != golden[name] {
			t.Errorf("%s: got\n%s\nwant\n%s", name, errs, golden[name])
		}
		fresh.Files = append(fresh.Files, f, txtar.File{Name: name + ".txt", Data: []byte(errs)})
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	checkEveryRule(t, said.String())
}

// inOrder sorts the list of what is wrong; the server has no order for it.
func inOrder(text string) string {
	head, list, found := strings.Cut(text, "\n* ")
	if !found {
		return text
	}
	items := strings.Split(strings.TrimSuffix(list, "\n"), "\n* ")
	slices.Sort(items)
	return head + "\n* " + strings.Join(items, "\n* ") + "\n"
}

// checkEveryRule wants each message of a validation rule in the CRDs to have
// been said.
func checkEveryRule(t *testing.T, said string) {
	t.Helper()
	said = strings.Join(strings.Fields(said), " ")
	objects, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	rules := 0
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if list, ok := v["x-kubernetes-validations"].([]any); ok {
				for _, r := range list {
					if rule, _ := r.(map[string]any)["rule"].(string); strings.Contains(rule, "oldSelf") {
						continue // about changes; TestTenants makes one
					}
					rules++
					if m, _ := r.(map[string]any)["message"].(string); m == "" || !strings.Contains(said, strings.Join(strings.Fields(m), " ")) {
						t.Errorf("no object in testdata/rejected.txtar breaks the rule %q with message %q", r.(map[string]any)["rule"], m)
					}
				}
			}
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	for _, o := range objects {
		if o.GetKind() == "CustomResourceDefinition" && strings.HasSuffix(o.GetName(), "."+group) {
			walk(o.Object)
		}
	}
	if rules < 15 {
		t.Errorf("only %d rules found in the CRDs", rules)
	}
}

const (
	networkWeb = `
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: web}
spec: {prefixes: [10.0.0.0/16, "fd00:1::/64"], reserved: [10.0.0.1], static: [10.0.1.0/24]}
`
	policyWeb = `
apiVersion: moire.dev/v1alpha1
kind: Policy
metadata: {name: web}
spec:
  ingress:
  - {name: from-web, action: allow, from: [{labels: {matchLabels: {app: web}}}], ports: [{port: 5432}]}
`
)

// TestVerbs does what people do with kubectl.
func TestVerbs(t *testing.T) {
	ns := project(t)
	in := func(args ...string) []string { return append(args, "-n", ns) }
	for _, s := range []struct {
		name, stdin string
		args        []string
		want        string // a regular expression
	}{
		{"create", networkWeb, in("create", "-f", "-"), `^network.moire.dev/web created\n$`},
		{"defaults", "", in("get", "network", "web", "-o", "jsonpath={.spec.default}"), `^open$`},
		{"columns", "", in("get", "net"), `^NAME +VNI +PREFIXES +DEFAULT +READY +AGE\nweb +\["10.0.0.0/16","fd00:1::/64"\] +open +\d+s\n$`},
		{"wide", "", in("get", "net", "-o", "wide"), `^NAME +VNI +PREFIXES +DEFAULT +READY +REASON +AGE\n`},
		{"server-side apply", policyWeb, in("apply", "--server-side", "-f", "-"), `^policy.moire.dev/web serverside-applied\n$`},
		{"policy defaults", "", in("get", "pol"), `^NAME +TIER +PRIORITY +MODE +READY +AGE\nweb +project +100 +enforce +\d+s\n$`},
		{"no difference", policyWeb, in("diff", "--server-side", "-f", "-"), `^$`},
		{"apply again", policyWeb, in("apply", "--server-side", "-f", "-"), `serverside-applied`},
		{"client-side apply", strings.Replace(networkWeb, "10.0.1.0/24", "10.0.2.0/24", 1), in("apply", "-f", "-"), `^network.moire.dev/web configured\n$`},
		{"patch", "", in("patch", "net", "web", "--type=merge", "-p", `{"spec":{"default":"deny"}}`), `patched`},
		{"describe", "", in("describe", "net", "web"), `(?s)Default: +deny\n.*10.0.2.0/24`},
		{"status of tenants", "", in("get", "net", "web", "-o", "jsonpath={.metadata.generation}"), `^\d+$`},
		{"explain", "", []string{"explain", "policy.spec.ingress.action"}, `(?s)KIND: +Policy.*allow\s+deny\s+accept\s+pass.*Action: allow or deny`},
		{"api-resources", "", []string{"api-resources", "--api-group=moire.dev", "-o", "name"}, `^backendpolicies.moire.dev\ndomains.moire.dev\nfaultpolicies.moire.dev\nfloatingips.moire.dev\nlinks.moire.dev\nnetworks.moire.dev\nnodes.moire.dev\npolicies.moire.dev\nservices.moire.dev\nworkloads.moire.dev\n$`},
		{"version", "", []string{"version"}, `Server Version: v1\.\d+\.\d+\+moire`},
		{"delete", "", in("delete", "net", "web"), `"web" deleted`},
		{"foreground", "", in("delete", "pol", "web", "--cascade=foreground"), `"web" deleted`},
	} {
		t.Run(s.name, func(t *testing.T) {
			if out := kubectl(t, s.stdin, s.args...); !regexp.MustCompile(s.want).MatchString(out) {
				t.Errorf("kubectl %s: got\n%s\nwant %s", strings.Join(s.args, " "), out, s.want)
			}
		})
	}
	kubectl(t, networkWeb, "create", "-n", ns, "-f", "-")
	changed := strings.Replace(networkWeb, "10.0.1.0/24", "10.0.3.0/24", 1)
	out, _, err := kubectlWith(t, shared.kubeconfig, changed, "diff", "-n", ns, "-f", "-")
	if err == nil || !strings.Contains(out, "+  - 10.0.3.0/24") {
		t.Errorf("diff does not show the change: %v\n%s", err, out)
	}
}

func TestNamespaceDeletion(t *testing.T) {
	ns := project(t)
	kubectl(t, networkWeb, "create", "-n", ns, "-f", "-")
	kubectl(t, policyWeb, "create", "-n", ns, "-f", "-")
	kubectl(t, fmt.Sprintf(declaredWorkload, "db"), "create", "-n", ns, "-f", "-")
	kubectl(t, "", "create", "configmap", "more", "-n", ns)
	shared.world.report(ns, "ran", "Running", "n1")
	kubectl(t, "", "delete", "namespace", ns, "--timeout=30s")
	if _, errs, err := kubectlWith(t, shared.kubeconfig, "", "get", "namespace", ns); err == nil || !strings.Contains(errs, "NotFound") {
		t.Errorf("the namespace is still there: %v %s", err, errs)
	}
	kubectl(t, "", "create", "namespace", ns)
	if out := kubectl(t, "", "get", "net,pol,configmap", "-n", ns, "-o", "name"); out != "" {
		t.Errorf("a new namespace of the same name has old objects:\n%s", out)
	}
}

func TestOwnerIsCollected(t *testing.T) {
	ns := project(t)
	kubectl(t, networkWeb, "create", "-n", ns, "-f", "-")
	uid := kubectl(t, "", "get", "net", "web", "-n", ns, "-o", "jsonpath={.metadata.uid}")
	owned := strings.Replace(policyWeb, "metadata: {name: web}", fmt.Sprintf(
		"metadata: {name: web, ownerReferences: [{apiVersion: moire.dev/v1alpha1, kind: Network, name: web, uid: %s}]}", uid), 1)
	kubectl(t, owned, "create", "-n", ns, "-f", "-")
	kubectl(t, "", "delete", "net", "web", "-n", ns)
	kubectl(t, "", "wait", "--for=delete", "policy/web", "-n", ns, "--timeout=40s")
}

// TestRolesAggregate: who has Kubernetes' role "view" or "admin" in a project
// has our rights too.
func TestRolesAggregate(t *testing.T) {
	for role, want := range map[string]string{"view": "networks", "edit": "networks", "admin": "policies"} {
		eventually(t, func() string {
			out := kubectl(t, "", "get", "clusterrole", role, "-o", "jsonpath={.rules[*].resources}")
			if !strings.Contains(out, want) {
				return fmt.Sprintf("role %s has no rights on %s: %s", role, want, out)
			}
			return ""
		})
	}
}
