package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// kubectl runs the real one as administrator.
func (r *running) kubectl(stdin string, args ...string) string {
	r.t.Helper()
	path, err := exec.LookPath("kubectl")
	if err != nil {
		r.t.Fatal("this test needs kubectl in PATH: install the package kubectl or kubernetes-client")
	}
	cmd := exec.CommandContext(r.t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+r.Kubeconfig(), "HOME="+r.t.TempDir())
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

const page = `
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: page}
spec: {networks: [{network: front}], selector: {}, ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: page}
spec:
  parentRefs: [{group: moire.dev, kind: Service, name: page}, {group: "", kind: Service, name: gone}, {name: some-gateway}]
  rules:
    - backendRefs: [{name: page, port: 80, weight: 9}, {name: missing, port: 80}]
      retry: {attempts: 2}
---
apiVersion: moire.dev/v1alpha1
kind: BackendPolicy
metadata: {name: page}
spec: {targetRefs: [{kind: Service, name: page}], balancer: {kind: PeakEWMA}}
---
apiVersion: moire.dev/v1alpha1
kind: FaultPolicy
metadata: {name: page}
spec: {targetRefs: [{kind: HTTPRoute, name: nowhere}], abort: {status: 503, percent: 1}}
`

// trafficOf: what kubectl writes about traffic comes to the nodes, and what became
// of it is in the status as the standard says.
func trafficOf(t *testing.T, c *running, a *agent) {
	c.kubectl(page, "apply", "--server-side", "-n", "shop", "-f", "-")
	route := func() (r gateway.HTTPRoute) {
		if err := json.Unmarshal([]byte(c.kubectl("", "get", "httproute", "page", "-n", "shop", "-o", "json")), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	told := func(r *gateway.HTTPRoute, parent, kind string) string {
		for _, p := range r.Status.Parents {
			if string(p.ParentRef.Name) != parent || p.ControllerName != controller {
				continue
			}
			if c := meta.FindStatusCondition(p.Conditions, kind); c != nil {
				return fmt.Sprintf("%s %s %d", c.Status, c.Reason, c.ObservedGeneration)
			}
		}
		return "nothing"
	}
	says := func(r *gateway.HTTPRoute, want ...string) error {
		for _, w := range want {
			parent, rest, _ := strings.Cut(w, " ")
			kind, rest, _ := strings.Cut(rest, " ")
			if got := told(r, parent, kind); got != rest {
				return fmt.Errorf("%s of parent %s is %s, want %s", kind, parent, got, rest)
			}
		}
		return nil
	}
	eventually(t, "the route says how it is", func() error {
		r := route()
		if len(r.Status.Parents) != 3 {
			return fmt.Errorf("parents %+v", r.Status.Parents)
		}
		return says(&r, "page Accepted True Accepted 1", "page ResolvedRefs False BackendNotFound 1", "gone Accepted False NoMatchingParent 1", "some-gateway Accepted False NoMatchingParent 1")
	})
	eventually(t, "the node has it", func() error {
		s, _ := a.now()
		for k, f := range s.Frontends {
			name := fmt.Sprintf("%d/shop/page/80", k.Addr.VNI)
			if r := s.Routes[f.Routes[0]]; f.Service == "shop/page" && r.Rules[0].Backends[0].Cluster == name && s.Clusters[name].Balancer.Kind == "PeakEWMA" {
				return nil
			}
		}
		return fmt.Errorf("frontends %+v, routes %+v", s.Frontends, s.Routes)
	})
	for policy, want := range map[string]string{"backendpolicy/page": "True Accepted", "faultpolicy/page": "False TargetNotFound"} {
		eventually(t, policy+" says how it is", func() error {
			if got := c.kubectl("", "get", policy, "-n", "shop", "-o", `jsonpath={.status.conditions[?(@.type=="Accepted")]['status','reason']}`); got != want {
				return fmt.Errorf("it says %s, want %s", got, want)
			}
			return nil
		})
	}
	table := c.kubectl("", "get", "backendpolicies,faultpolicies,httproutes", "-n", "shop")
	for _, want := range []string{"TARGETS", "BALANCER", "PeakEWMA", "HOSTNAMES", "False"} {
		if !strings.Contains(table, want) {
			t.Errorf("kubectl get shows no %s:\n%s", want, table)
		}
	}

	// What another controller wrote stays; what is mended is said anew, of the new
	// generation.
	others := `{"status":{"parents":[{"parentRef":{"name":"some-gateway"},"controllerName":"example.com/other","conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}]}}`
	c.kubectl("", "patch", "httproute", "page", "-n", "shop", "--subresource=status", "--type=merge", "-p", others)
	c.kubectl("", "patch", "httproute", "page", "-n", "shop", "--type=json", "-p", `[{"op":"replace","path":"/spec/rules/0/backendRefs/1/name","value":"page"},{"op":"remove","path":"/spec/parentRefs/1"}]`)
	eventually(t, "the mended route says so", func() error {
		r := route()
		if len(r.Status.Parents) != 3 || r.Status.Parents[0].ControllerName != "example.com/other" {
			return fmt.Errorf("parents %+v", r.Status.Parents)
		}
		return says(&r, "page Accepted True Accepted 2", "page ResolvedRefs True ResolvedRefs 2")
	})
	before := route().ResourceVersion
	time.Sleep(time.Second)
	if after := route().ResourceVersion; after != before {
		t.Errorf("its status was written again, although nothing changed: %s, then %s", before, after)
	}

	c.kubectl(page, "delete", "-n", "shop", "-f", "-")
	eventually(t, "the node has nothing of it any more", func() error {
		if s, _ := a.now(); len(s.Frontends)+len(s.Routes)+len(s.Clusters) > 0 {
			return fmt.Errorf("frontends %+v, routes %+v, clusters %+v", s.Frontends, s.Routes, s.Clusters)
		}
		return nil
	})
}
