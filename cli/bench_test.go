package cli

import (
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkGet10000 is `moire get networks` with 10,000 objects, the server
// included; what the process itself costs to start comes on top.
func BenchmarkGet10000(b *testing.B) {
	api := newFakeAPI()
	var list []byte
	for i := range 10_000 {
		list = fmt.Appendf(list, `---
{apiVersion: moire.dev/v1alpha1, kind: Network, metadata: {name: n%05d, namespace: shop, labels: {app: web}}, spec: {prefixes: ["10.0.0.0/24"]}, status: {vni: %d}}
`, i, i)
	}
	if err := api.put(string(list)); err != nil {
		b.Fatal(err)
	}
	server := httptest.NewUnstartedServer(api)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	defer api.close()
	config := filepath.Join(b.TempDir(), "kubeconfig")
	if err := os.WriteFile(config, []byte(fakeKubeconfig(server)), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, args := range [][]string{{"get", "networks"}, {"get", "networks", "-A"}, {"get", "networks", "-o", "json"}, {"get", "networks", "-o", "name"}} {
		b.Run(fmt.Sprint(args), func(b *testing.B) {
			for b.Loop() {
				if code := Main(append(args, "--kubeconfig", config), nil, io.Discard, os.Stderr); code != 0 {
					b.Fatal(code)
				}
			}
		})
	}
}
