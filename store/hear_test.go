package store

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// asked makes a watch whose declared side is next.
func asked(next http.HandlerFunc) (*watching, *http.Request) {
	info := &request.RequestInfo{IsResourceRequest: true, APIGroup: group, APIVersion: version, Resource: "workloads", Verb: "watch"}
	r := httptest.NewRequest("GET", "/apis/moire.dev/v1alpha1/workloads?watch=1", nil)
	r = r.WithContext(request.WithRequestInfo(r.Context(), info))
	l := &laidResource{kind: "Workload", plural: "workloads"}
	return &watching{asking: asking{laid: l, next: next, info: info}, intent: "5"}, r
}

func TestHear(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, c := range []struct {
		name   string
		next   http.HandlerFunc
		code   int // 0: a stream
		events int
	}{
		{"frames in pieces", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("resourceVersion") != "5" || r.Header.Get("Accept") != "application/json" {
				t.Errorf("asked for %s as %s", r.URL, r.Header.Get("Accept"))
			}
			fmt.Fprint(w, `{"type":"ADDED","object":{"metadata":`)
			w.(http.Flusher).Flush()
			fmt.Fprint(w, `{"name":"a"}}}`+"\n\n"+`{"type":"DELETED","object":{"metadata":{"name":"a"}}}`+"\n"+`{"type":`)
		}, 0, 2},
		{"nothing", func(http.ResponseWriter, *http.Request) {}, 0, 0},
		{"refused", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "gone", http.StatusGone) }, http.StatusGone, 0},
		{"panic at once", func(http.ResponseWriter, *http.Request) { panic("oh") }, http.StatusInternalServerError, 0},
		{"panic later", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); panic(http.ErrAbortHandler) }, 0, 0},
		{"garbage", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "oops") }, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, r := asked(c.next)
			h := s.hear(r, r.URL.Query())
			defer h.wait()
			if failed := h.failed(); failed != nil {
				if failed.code != c.code {
					t.Errorf("failed with %d, want %d", failed.code, c.code)
				}
				return
			}
			n := 0
			for range h.out {
				n++
			}
			if c.code != 0 || n != c.events {
				t.Errorf("%d events, want %d (code %d)", n, c.events, c.code)
			}
		})
	}
}

// TestHearStops: a client that goes away ends a watch that has more to say.
func TestHearStops(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, r := asked(func(w http.ResponseWriter, _ *http.Request) {
		line := `{"type":"ADDED","object":{"metadata":{"name":"a"}}}` + "\n"
		for {
			if _, err := fmt.Fprint(w, strings.Repeat(line, 10)); err != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithCancel(r.Context())
	h := s.hear(r.WithContext(ctx), r.URL.Query())
	<-h.out
	cancel()
	h.wait()
}

// TestShelvesFollow: the shelves follow a world that is set, changed, replaced
// and taken away, and stop with their context.
func TestShelvesFollow(t *testing.T) {
	o, err := newOverlay(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	// Who asks before the first world is set waits for it, or for its own end.
	soon, late := context.WithTimeout(ctx, 20*time.Millisecond)
	defer late()
	if o.await(soon) {
		t.Error("the world is known before it was set")
	}
	done := make(chan error, 1)
	go func() { done <- o.run(ctx) }()
	asked := make(chan int, 1)
	go func() {
		o.await(ctx)
		o.look(ctx, o.laid["workloads"])
		asked <- len(o.laid["workloads"].shelf.Load().entries)
	}()
	shows := func(want int) {
		t.Helper()
		eventually(t, func() string {
			if n := len(o.laid["workloads"].shelf.Load().entries); n != want {
				return fmt.Sprintf("%d workloads are shown, want %d", n, want)
			}
			return ""
		})
	}
	first := newFakeWorld()
	first.report("ns", "a", "Running", "n1")
	o.setWorld(first)
	shows(1)
	if n := <-asked; n != 1 {
		t.Errorf("who waited for the world sees %d workloads, want 1", n)
	}
	first.report("ns", "b", "Running", "n1")
	shows(2)
	second := newFakeWorld()
	o.setWorld(second)
	shows(0)
	second.report("ns", "c", "Running", "n1")
	shows(1)
	// Nobody looks any more: nothing is followed, until somebody does.
	l := o.laid["workloads"]
	l.mu.Lock()
	l.asked = time.Time{}
	l.mu.Unlock()
	second.report("ns", "d", "Running", "n1")
	eventually(t, func() string {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.followed {
			return "the shelf is followed although nobody looks"
		}
		return ""
	})
	second.report("ns", "e", "Running", "n1")
	o.look(ctx, l)
	if n := len(l.shelf.Load().entries); n != 3 {
		t.Errorf("who looks after a pause sees %d workloads, want 3", n)
	}
	second.report("ns", "f", "Running", "n1")
	shows(4)
	o.setWorld(nil)
	shows(0)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
