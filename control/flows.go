package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/flow"
	"moire.dev/moire/flow/record"
)

// flowsHandler answers GET .../flows: records as JSON lines, oldest first.
// ?follow=true goes on with those that come. Within a project only records
// with one end in it are shown.
type flowsHandler struct {
	archive *flow.Archive
	now     func() time.Time
	// life ends when followers shall end.
	life context.Context
}

// virtualRead checks the method and returns the project of the path; "" is
// all of them. It answers and returns false when the request is wrong.
func virtualRead(w http.ResponseWriter, r *http.Request) (project string, ok bool) {
	if r.Method != http.MethodGet {
		fail(w, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "only GET is possible here")
		return "", false
	}
	return projectOfPath(r), true
}

// fail answers with a Status, as the rest of the API does.
func fail(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// The caller may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	})
}

// flag reads a boolean query parameter; it may stand without a value.
func flag(q url.Values, name string) (bool, error) {
	if !q.Has(name) {
		return false, nil
	}
	if q.Get(name) == "" {
		return true, nil
	}
	on, err := strconv.ParseBool(q.Get(name))
	if err != nil {
		return false, fmt.Errorf("%s=%q is neither true nor false", name, q.Get(name))
	}
	return on, nil
}

func (h flowsHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	project, ok := virtualRead(w, r)
	if !ok {
		return
	}
	filter, err := flow.ParseFilter(r.URL.Query(), h.now())
	if err == nil && project != "" {
		if filter.Project != "" && filter.Project != project {
			err = fmt.Errorf("project=%q is not the project of the path, %s; leave it out", filter.Project, project)
		}
		filter.Project = project
	}
	follow := false
	if err == nil {
		follow, err = flag(r.URL.Query(), "follow")
	}
	if err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("X-Moire-Records-Lost", strconv.FormatUint(h.lost(), 10))
	out := json.NewEncoder(w)
	if !follow {
		for _, rec := range h.archive.Query(filter) {
			if out.Encode(rec) != nil {
				return // the caller is gone
			}
		}
		return
	}
	h.follow(w, r, filter, out)
}

func (h flowsHandler) lost() (sum uint64) {
	for _, n := range h.archive.Lost() {
		sum += n
	}
	return sum
}

// follow streams until the caller goes or we stop. It flushes when nothing
// more comes at once.
func (h flowsHandler) follow(w http.ResponseWriter, r *http.Request, filter flow.Filter, out *json.Encoder) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.life, cancel)()
	c := http.NewResponseController(w)
	var mu sync.Mutex // of w
	flush := func() {
		mu.Lock()
		defer mu.Unlock()
		if c.Flush() != nil {
			cancel()
		}
	}
	w.WriteHeader(http.StatusOK) // flushed below: whoever sees it is followed already
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for sleep(ctx, 50*time.Millisecond) {
			flush()
		}
	})
	missed := h.archive.Follow(ctx, filter, func(rec record.Record) {
		mu.Lock()
		defer mu.Unlock()
		if out.Encode(rec) != nil {
			cancel()
		}
	})
	if missed > 0 {
		mu.Lock()
		defer mu.Unlock()
		// Not a record: whoever reads tells it apart by its field.
		_ = out.Encode(map[string]uint64{"missed": missed})
	}
}
