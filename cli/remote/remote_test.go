package remote

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"moire.dev/moire/cli/fault"
)

func serve(t *testing.T, handler http.HandlerFunc, timeout time.Duration) *Client {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	c, err := New(&rest.Config{Host: s.URL}, timeout, "moire/test")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnswersBecomeExitCodes(t *testing.T) {
	for _, c := range []struct {
		code      int
		body      string
		exit      int
		text, fix string
	}{
		{400, `{"message":"bad","reason":"BadRequest"}`, fault.Usage, "bad", ""},
		{401, `{"message":"Unauthorized"}`, fault.Forbidden, "Unauthorized", "certificate or token"},
		{403, `{"message":"User \"x\" cannot list networks"}`, fault.Forbidden, "cannot list", "moire-tenant-viewer"},
		{404, `{"message":"namespaces \"x\" not found","reason":"NotFound"}`, fault.Failed, "not found", "apply a Namespace"},
		{404, `{"message":"networks \"x\" not found","reason":"NotFound"}`, fault.Failed, "not found", ""},
		{409, `{"message":"conflict","reason":"Conflict","details":{"causes":[{"reason":"FieldManagerConflict"}]}}`, fault.Failed, "conflict", "--force-conflicts"},
		{422, `{"message":"invalid"}`, fault.Usage, "invalid", ""},
		{429, `{"message":"slow down"}`, fault.Unreachable, "slow down", "try again"},
		{500, `oops`, fault.Failed, "the server answered 500: oops", ""},
		{503, `<html>`, fault.Unreachable, "503", "try again"},
		{504, `{"message":"timeout"}`, fault.Timeout, "timeout", ""},
		{302, ``, fault.Failed, "302", ""},
	} {
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.code)
			w.Write([]byte(c.body))
		}, time.Second)
		_, err := client.Do(t.Context(), Request{Path: "/x"})
		var r *Refused
		if !errors.As(err, &r) || fault.Code(err) != c.exit || !strings.Contains(err.Error(), c.text) || !strings.Contains(r.Fix(), c.fix) || (c.fix == "") != (r.Fix() == "") {
			t.Errorf("%d: %v (exit code %d)", c.code, err, fault.Code(err))
		}
		if IsNotFound(err) != (c.code == 404) {
			t.Errorf("%d: IsNotFound", c.code)
		}
	}
}

func TestTimeoutAndCancel(t *testing.T) {
	block := make(chan struct{})
	client := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-block:
		case <-r.Context().Done():
		}
	}, 30*time.Millisecond)
	defer close(block)
	if _, err := client.Do(t.Context(), Request{Path: "/"}); fault.Code(err) != fault.Timeout || !strings.Contains(err.Error(), "--request-timeout") {
		t.Error(err)
	}
	client.timeout = 0
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Do(ctx, Request{Path: "/"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRequestCarriesWhatItShould(t *testing.T) {
	var warned string
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "PATCH" || r.URL.String() != "/a/b?x=1" || r.Header.Get("User-Agent") != "moire/test" || r.Header.Get("Content-Type") != "t" {
			t.Error(r.Method, r.URL, r.Header)
		}
		w.Header().Add("Warning", `299 - "say \"please\""`)
		w.WriteHeader(201)
		w.Write([]byte("body"))
	}, time.Second)
	client.Warn = func(s string) { warned = s }
	got, err := client.Do(t.Context(), Request{Method: "PATCH", Path: "/a/b", Query: map[string][]string{"x": {"1"}}, Type: "t", Body: []byte("b")})
	if err != nil || got.Code != 201 || string(got.Body) != "body" || warned != `say "please"` {
		t.Error(got, err, warned)
	}
}

func TestFind(t *testing.T) {
	asked := 0
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path == "/apis" {
			w.Write([]byte(`{"items":[{"metadata":{"name":"apps"},"versions":[{"version":"v1","resources":[{"resource":"deployments","scope":"Namespaced","responseKind":{"kind":"Deployment"},"shortNames":["deploy"]}]}]}]}`))
			return
		}
		w.Write([]byte(`{"items":[]}`))
	}, time.Second)
	for word, want := range map[string]string{
		"net": "networks.moire.dev", "Networks": "networks.moire.dev", "network.moire.dev": "networks.moire.dev", "networks.v1alpha1.moire.dev": "networks.moire.dev",
		"pol": "policies.moire.dev", "wl": "workloads.moire.dev", "no": "nodes.moire.dev", "dom": "domains.moire.dev", "ns": "namespaces", "projects": "namespaces",
	} {
		if k, err := client.Find(t.Context(), word); err != nil || k.Resource() != want {
			t.Errorf("%s: %v %v", word, k, err)
		}
	}
	if asked != 0 {
		t.Error("the server was asked for kinds that are known")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			k, err := client.Find(t.Context(), "deploy")
			if err != nil || k.Path("shop", "x") != "/apis/apps/v1/namespaces/shop/deployments/x" || k.Display() != "deployment.apps" {
				t.Error(k, err)
			}
		})
	}
	wg.Wait()
	if asked != 2 {
		t.Errorf("discovery was asked %d times", asked)
	}
	if _, err := client.Find(t.Context(), "unicorn"); fault.Code(err) != fault.Usage {
		t.Error(err)
	}
	if _, err := client.FindKind(t.Context(), "apps/v1", "Unicorn"); fault.Code(err) != fault.Usage {
		t.Error(err)
	}
}

const config = `apiVersion: v1
kind: Config
current-context: a
clusters: [{name: c, cluster: {server: "https://192.0.2.1:7443"}}]
contexts: [{name: a, context: {cluster: c, namespace: shop}}, {name: b, context: {cluster: c}}]
`

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config")
	home := filepath.Join(dir, "home")
	if err := os.MkdirAll(filepath.Join(home, ".kube"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{file, filepath.Join(home, ".kube", "config")} {
		if err := os.WriteFile(f, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for _, c := range []struct {
		name      string
		config    Config
		namespace string
		code      int
	}{
		{"flag", Config{Kubeconfig: file, Getenv: env("KUBECONFIG", "/absent")}, "shop", 0},
		{"environment", Config{Getenv: env("KUBECONFIG", "/absent:"+file)}, "shop", 0},
		{"context", Config{Context: "b", Getenv: env("KUBECONFIG", file)}, "default", 0},
		{"namespace", Config{Namespace: "x", Getenv: env("KUBECONFIG", file)}, "x", 0},
		{"absent flag", Config{Kubeconfig: "/absent", Getenv: env()}, "", fault.Usage},
		{"a directory", Config{Kubeconfig: dir, Getenv: env()}, "", fault.Usage},
		{"absent environment", Config{Getenv: env("KUBECONFIG", "/absent")}, "", fault.Usage},
		{"absent context", Config{Context: "z", Getenv: env("KUBECONFIG", file)}, "", fault.Usage},
	} {
		got, err := Open(c.config)
		if fault.Code(err) != c.code || err == nil && (got.Namespace != c.namespace || got.Server != "https://192.0.2.1:7443") {
			t.Errorf("%s: %+v %v", c.name, got, err)
		}
	}
	// Without a flag and a variable it depends on whether something runs here.
	if _, err := os.Stat(LocalKubeconfig); err == nil {
		return
	}
	if got, err := Open(Config{Getenv: env("HOME", home)}); err != nil || got.Namespace != "shop" {
		t.Error(got, err)
	}
	if _, err := Open(Config{Getenv: env("HOME", dir)}); fault.Code(err) != fault.Unreachable || !strings.Contains(err.Error(), "moire up") {
		t.Error(err)
	}
}
