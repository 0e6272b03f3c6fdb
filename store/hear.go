package store

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"

	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"
)

// heardEvent is an event of the declared objects.
type heardEvent struct {
	Type   watch.EventType
	Object map[string]any
}

// hearing is a watch of the declared objects that runs inside this process. It
// is the http.ResponseWriter of that watch.
type hearing struct {
	answer // before the stream starts, or instead of it
	out    chan heardEvent
	done   <-chan struct{} // of the client
	begun  chan struct{}   // closed when code is known
	ended  chan struct{}   // closed when the watch has returned
	rest   []byte          // the start of a frame
}

// hear starts a watch of the declared objects from s.intent on. It ends with
// the request's context; wait for it.
func (s *watching) hear(r *http.Request, q url.Values) *hearing {
	h := &hearing{
		answer: answer{header: http.Header{}},
		out:    make(chan heardEvent, 64),
		done:   r.Context().Done(),
		begun:  make(chan struct{}),
		ended:  make(chan struct{}),
	}
	ask := url.Values{"watch": {"true"}, "resourceVersion": {s.intent}}
	for _, k := range []string{"fieldSelector", "timeoutSeconds", "allowWatchBookmarks"} {
		if v := q.Get(k); v != "" {
			ask.Set(k, v)
		}
	}
	c := plain(r.Context(), s.query(r, "watch", ask))
	go func() {
		defer close(h.ended)
		defer close(h.out)
		defer h.recovered()
		s.next.ServeHTTP(h, c)
		h.WriteHeader(http.StatusOK)
	}()
	return h
}

// recovered ends a watch that panicked: the server around us only catches what
// happens on its own goroutine.
func (h *hearing) recovered() {
	p := recover()
	if p == nil {
		return
	}
	if p != http.ErrAbortHandler {
		klog.Background().Error(fmt.Errorf("panic: %v", p), "Watch ended", "stack", string(debug.Stack()))
	}
	h.WriteHeader(http.StatusInternalServerError)
}

// failed waits until the watch has begun, and returns its answer if that is
// not a stream.
func (h *hearing) failed() *answer {
	<-h.begun
	if h.code == http.StatusOK {
		return nil
	}
	<-h.ended
	return &h.answer
}

func (h *hearing) wait() { <-h.ended }

func (h *hearing) WriteHeader(code int) {
	if h.code == 0 {
		h.code = code
		close(h.begun)
	}
}

// Write takes frames, one event a line.
func (h *hearing) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	if h.code != http.StatusOK {
		return h.body.Write(b)
	}
	h.rest = append(h.rest, b...)
	for {
		line, rest, whole := bytes.Cut(h.rest, []byte{'\n'})
		if !whole {
			return len(b), nil
		}
		if len(bytes.TrimSpace(line)) > 0 {
			var frame map[string]any
			if err := utiljson.Unmarshal(line, &frame); err != nil {
				return 0, err
			}
			kind, _ := frame["type"].(string)
			object, _ := frame["object"].(map[string]any)
			select {
			case h.out <- heardEvent{watch.EventType(kind), object}:
			case <-h.done:
				return 0, http.ErrHandlerTimeout
			}
		}
		h.rest = append(h.rest[:0], rest...)
	}
}

// Flush and CloseNotify are what the API server wants of a stream.
func (h *hearing) Flush() {}

func (h *hearing) CloseNotify() <-chan bool { return make(chan bool) }
