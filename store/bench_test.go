package store

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// BenchmarkList gets a table of 10,000 reported workloads, as `kubectl get` does.
func BenchmarkList(b *testing.B) {
	const namespace, total = "crowd", 10_000
	shared.world.change(func() {
		if shared.world.objects["workloads"] == nil {
			shared.world.objects["workloads"] = map[objectKey]*unstructured.Unstructured{}
		}
		for i := range total {
			o := reported(namespace, fmt.Sprintf("w%05d", i), "Running", "n1")
			shared.world.objects["workloads"][keyOf(o)] = o
		}
	})
	b.Cleanup(func() { shared.world.change(func() { clear(shared.world.objects["workloads"]) }) })
	eventually(b, func() string {
		shared.store.world.look(b.Context(), shared.store.world.laid["workloads"])
		if n := len(shared.store.world.laid["workloads"].shelf.Load().entries); n < total {
			return fmt.Sprintf("%d of %d workloads are shown", n, total)
		}
		return ""
	})
	client := adminHTTP(b, shared.dir)
	for _, form := range []struct{ name, accept string }{
		{"table", "application/json;as=Table;g=meta.k8s.io;v=v1"},
		{"json", "application/json"},
	} {
		b.Run(form.name, func(b *testing.B) {
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), "GET", shared.store.RESTConfig().Host+"/apis/moire.dev/v1alpha1/namespaces/"+namespace+"/workloads", nil)
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Accept", form.accept)
				resp, err := client.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || n < total*100 {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// BenchmarkShelf takes in one changed workload of 10,000.
func BenchmarkShelf(b *testing.B) {
	objects := make([]*unstructured.Unstructured, 10_000)
	for i := range objects {
		objects[i] = reported("crowd", fmt.Sprintf("w%05d", i), "Running", "n1")
	}
	s := newShelf(0).follow("Workload", objects)
	for i := 0; b.Loop(); i++ {
		objects[i%len(objects)] = reported("crowd", fmt.Sprintf("w%05d", i%len(objects)), fmt.Sprint(i), "n1")
		s = s.follow("Workload", objects)
	}
}
