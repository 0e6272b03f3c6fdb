package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"pgregory.net/rapid"
)

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		in, intent string
		world      int64
		ok         bool
	}{
		{"", "", 0, false},
		{"0", "0", 0, false},
		{"12345", "12345", 0, false},
		{"1234567890123456", "1234567890123456", 0, false},
		{"71234567890123456", "7", 1234567890123456, true},
		{"7.1234567890123456", "7.1234567890123456", 0, false},
		{joinVersion("4711", 1_795_000_000_000_123), "4711", 1_795_000_000_000_123, true},
		{joinVersion("1", 0), "1", 0, true},
	} {
		intent, world, ok := splitVersion(c.in)
		if intent != c.intent || world != c.world || ok != c.ok {
			t.Errorf("splitVersion(%q) = %q %d %v", c.in, intent, world, ok)
		}
	}
}

// TestVersionsGrow: a client that compares versions sees both sides grow.
func TestVersionsGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		intent, world := rapid.Int64Range(1, 1<<40).Draw(t, "intent"), rapid.Int64Range(0, 1<<53).Draw(t, "world")
		more, later := rapid.Int64Range(0, 1000).Draw(t, "more"), rapid.Int64Range(0, 1000).Draw(t, "later")
		a, b := joinVersion(fmt.Sprint(intent), world), joinVersion(fmt.Sprint(intent+more), world+later)
		n, err := resourceversion.CompareResourceVersion(a, b)
		want := -1
		if more == 0 && later == 0 {
			want = 0
		}
		if err != nil || n != want {
			t.Fatalf("compare %s with %s: %d %v, want %d", a, b, n, err, want)
		}
	})
}

func FuzzSplitVersion(f *testing.F) {
	f.Add("0")
	f.Add("47111234567890123456")
	f.Fuzz(func(t *testing.T, v string) {
		intent, world, ok := splitVersion(v)
		if ok && joinVersion(intent, world) != v || !ok && intent != v {
			t.Errorf("%q -> %q %d %v", v, intent, world, ok)
		}
	})
}

func FuzzStripVersion(f *testing.F) {
	f.Add([]byte(`{"metadata":{"resourceVersion":"47111234567890123456"}}`))
	f.Add([]byte(`[{"path":"/metadata/resourceVersion","value":"47111234567890123456"},null,1]`))
	f.Add([]byte(`{"preconditions":{"resourceVersion":1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := exact(data)
		if err != nil {
			return
		}
		changed := stripVersion(v)
		if out, err := json.Marshal(v); err != nil || changed && bytes.Equal(out, data) {
			t.Errorf("stripped %q to %q, %v", data, out, err)
		}
	})
}

// TestShelf checks a shelf against a plain map through random changes: what it
// holds, what it held at any revision it remembers, and its log.
func TestShelf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newShelf(100_007)
		type picture map[objectKey]string
		past := map[int64]picture{100_007: {}}
		shelves := []*shelf{s}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now := picture{}
			var objects []*unstructured.Unstructured
			for i := range 5 {
				phase := rapid.SampledFrom([]string{"", "Running", "Stale"}).Draw(t, "phase")
				if phase == "" {
					continue
				}
				o := reported("ns", fmt.Sprint("w", i), phase, "n1")
				now[keyOf(o)] = phase
				objects = append(objects, o)
			}
			n := s.follow("Workload", objects)
			if reflect.DeepEqual(past[s.rev], now) != (n == s) {
				t.Fatalf("revision %d: a new shelf where nothing changed, or none where something did", s.rev)
			}
			s = n
			past[s.rev] = now
			shelves = append(shelves, s)
		}
		phases := func(entries map[objectKey]*entry) picture {
			p := picture{}
			for k, e := range entries {
				p[k], _, _ = unstructured.NestedString(e.object, "status", "phase")
			}
			return p
		}
		for rev, want := range past {
			was, ok := s.at(rev)
			if !ok || !maps.Equal(phases(was), want) {
				t.Fatalf("at %d: %v %v, want %v", rev, phases(was), ok, want)
			}
			changes, ok := s.after(rev)
			if !ok {
				t.Fatalf("the changes after %d are forgotten", rev)
			}
			replayed := maps.Clone(was)
			for _, c := range changes {
				if replayed[c.key] != c.old {
					t.Fatalf("change at %d of %v does not start where the one before ended", c.rev, c.key)
				}
				if c.now == nil {
					delete(replayed, c.key)
				} else {
					replayed[c.key] = c.now
				}
			}
			if !maps.Equal(replayed, s.entries) {
				t.Fatalf("replay from %d does not end in the present", rev)
			}
		}
		for _, old := range shelves { // nothing that came later touched them
			if !maps.Equal(phases(old.entries), past[old.rev]) {
				t.Fatalf("the shelf of revision %d changed", old.rev)
			}
		}
		for what, rev := range map[string]int64{"the future": s.rev + worldStep, "an earlier process": 99_007, "another process": s.rev - 1} {
			if _, ok := s.at(rev); ok {
				t.Fatalf("a revision of %s is known", what)
			}
		}
	})
}

func TestShelfForgets(t *testing.T) {
	s := newShelf(0)
	for i := range 2 * shelfLog {
		s = s.follow("Workload", []*unstructured.Unstructured{reported("ns", "w", fmt.Sprint(i), "n")})
	}
	if len(s.log) > 2*shelfLog {
		t.Errorf("the log has grown to %d", len(s.log))
	}
	if _, ok := s.after(0); ok {
		t.Error("the first revisions are still known, though the log is bounded")
	}
	if changes, ok := s.after(s.rev - 10*worldStep); !ok || len(changes) != 10 {
		t.Errorf("the last ten changes: %d %v", len(changes), ok)
	}
}

func TestLay(t *testing.T) {
	s := newShelf(5).follow("Workload", []*unstructured.Unstructured{reported("ns", "w", "Running", "n1", "from=world")})
	declared := map[string]any{
		"metadata": map[string]any{"name": "w", "namespace": "ns", "resourceVersion": "42", "labels": map[string]any{"from": "intent"}},
		"spec":     map[string]any{"account": "db"},
		"status":   map[string]any{"phase": "Pending"},
	}
	before := fmt.Sprint(declared)
	o := s.lay(objectKey{"ns", "w"}, declared)
	if o.GetLabels()["from"] != "intent" || o.GetResourceVersion() != joinVersion("42", 5+worldStep) {
		t.Errorf("metadata is not that of the intent: %v", o.Object["metadata"])
	}
	if phase, _, _ := unstructured.NestedString(o.Object, "status", "phase"); phase != "Running" {
		t.Errorf("status is not that of the world: %v", o.Object["status"])
	}
	if fmt.Sprint(declared) != before {
		t.Error("laying changed the declared object")
	}
	only := s.lay(objectKey{"ns", "w"}, nil)
	if only.GetKind() != "Workload" || only.GetAPIVersion() != "moire.dev/v1alpha1" || len(only.GetUID()) != 36 || only.GetLabels()["from"] != "world" {
		t.Errorf("reported object: %v", only.Object)
	}
	if s.lay(objectKey{"ns", "other"}, nil) != nil {
		t.Error("something from nothing")
	}
	gone := s.follow("Workload", nil)
	bare := gone.lay(objectKey{"ns", "w"}, declared)
	if phase, _, _ := unstructured.NestedString(bare.Object, "status", "phase"); phase != "Pending" || bare.GetResourceVersion() != joinVersion("42", 5+2*worldStep) {
		t.Errorf("after the world forgot it: %v", bare.Object)
	}
	if uid := worldUID("Workload", objectKey{"ns", "w"}, "x"); strings.Count(uid, "-") != 4 || uid == worldUID("Node", objectKey{"ns", "w"}, "x") {
		t.Errorf("uid %s", uid)
	}
}
