package store

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// fakeWorld is a World that tests fill.
type fakeWorld struct {
	mu      sync.Mutex
	objects map[string]map[objectKey]*unstructured.Unstructured
	changed chan struct{}
}

func newFakeWorld() *fakeWorld {
	return &fakeWorld{objects: map[string]map[objectKey]*unstructured.Unstructured{}, changed: make(chan struct{})}
}

func (w *fakeWorld) Objects(resource, namespace string) []*unstructured.Unstructured {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Collect(maps.Values(w.objects[resource]))
	return slices.DeleteFunc(all, func(o *unstructured.Unstructured) bool {
		return namespace != "" && o.GetNamespace() != namespace
	})
}

func (w *fakeWorld) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (w *fakeWorld) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// report puts a workload into the world.
func (w *fakeWorld) report(namespace, name, phase, node string, labels ...string) {
	o := reported(namespace, name, phase, node, labels...)
	w.change(func() {
		if w.objects["workloads"] == nil {
			w.objects["workloads"] = map[objectKey]*unstructured.Unstructured{}
		}
		w.objects["workloads"][keyOf(o)] = o
	})
}

func (w *fakeWorld) forget(namespace, name string) {
	w.change(func() { delete(w.objects["workloads"], objectKey{namespace, name}) })
}

func (w *fakeWorld) node(name, state string) {
	o := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": name, "creationTimestamp": "2026-01-02T03:04:05Z"},
		"spec":     map[string]any{"address": "192.0.2.1"},
		"status":   map[string]any{"state": state, "workloads": int64(2)},
	}}
	w.change(func() {
		if w.objects["nodes"] == nil {
			w.objects["nodes"] = map[objectKey]*unstructured.Unstructured{}
		}
		w.objects["nodes"][keyOf(o)] = o
	})
}

func reported(namespace, name, phase, node string, labels ...string) *unstructured.Unstructured {
	l := map[string]any{}
	for _, kv := range labels {
		k, v, _ := strings.Cut(kv, "=")
		l[k] = v
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": name, "namespace": namespace, "labels": l, "creationTimestamp": "2026-01-02T03:04:05Z"},
		"spec":     map[string]any{"account": "default", "interfaces": []any{map[string]any{"network": "net"}}},
		"status": map[string]any{
			"phase": phase, "node": node, "identity": int64(4_000_000_000),
			"interfaces": []any{map[string]any{"network": "net", "vni": int64(77), "addresses": []any{"10.0.0.9"}}},
		},
	}}
}

func testVirtual() []Virtual {
	return []Virtual{
		{Resource: "flows", Namespaced: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "flows of %s\n", r.URL.Path)
			if r.URL.Query().Get("follow") != "true" {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			for {
				select {
				case <-r.Context().Done():
					return
				case <-time.After(50 * time.Millisecond):
					fmt.Fprintln(w, "another")
					if http.NewResponseController(w).Flush() != nil {
						return
					}
				}
			}
		})},
		{Resource: "captures", Namespaced: true, Streams: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.Method) })},
		{Resource: "summary", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "all is well") })},
	}
}

// eventually calls f until it returns "" or half a minute has passed.
func eventually(t testing.TB, f func() string) {
	t.Helper()
	var last string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if last = f(); last == "" {
			return
		}
	}
	t.Fatal(last)
}
