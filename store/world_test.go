package store

import (
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// fakeWorld is a World that tests fill.
type fakeWorld struct {
	mu      sync.Mutex
	objects map[string][]*unstructured.Unstructured
	changed chan struct{}
}

func newFakeWorld() *fakeWorld {
	return &fakeWorld{objects: map[string][]*unstructured.Unstructured{}, changed: make(chan struct{})}
}

func (w *fakeWorld) Objects(resource, namespace string) []*unstructured.Unstructured {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []*unstructured.Unstructured
	for _, o := range w.objects[resource] {
		if namespace == "" || o.GetNamespace() == namespace {
			found = append(found, o)
		}
	}
	return found
}

func (w *fakeWorld) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func testVirtual() []Virtual { return nil }
