package store

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// serveVirtual hands a request to the handler of a virtual resource. The
// chain around us has checked who asks and whether they may.
func (o *overlay) serveVirtual(w http.ResponseWriter, r *http.Request, v Virtual, info *request.RequestInfo) {
	switch {
	case !v.Namespaced && info.Namespace != "":
		writeError(w, refuse(http.StatusNotFound, metav1.StatusReasonNotFound, v.Resource, "",
			fmt.Sprintf("%s belong to no project; ask at /apis/%s/%s/%s", v.Resource, group, version, v.Resource)))
	case r.Method != http.MethodGet && r.Method != http.MethodHead && !(v.Streams && r.Method == http.MethodPost):
		writeError(w, refuse(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, v.Resource, "",
			fmt.Sprintf("%s are computed, not stored; they can only be read with GET", v.Resource)))
	case o.longRunning(r, info):
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		watcher := make(chan struct{})
		go func() {
			defer close(watcher)
			select {
			case <-o.stopping:
				cancel()
			case <-ctx.Done():
			}
		}()
		v.Handler.ServeHTTP(w, r.WithContext(ctx))
		cancel()
		<-watcher
	default:
		v.Handler.ServeHTTP(w, r)
	}
}

// longRunning is true for requests that may stream without a time limit.
func (o *overlay) longRunning(r *http.Request, info *request.RequestInfo) bool {
	if info == nil || info.APIGroup != group {
		return false
	}
	v, ok := o.virtual[info.Resource]
	if !ok || v.Streams {
		return ok
	}
	q := r.URL.Query()
	for _, name := range []string{"follow", "watch"} {
		if on, err := strconv.ParseBool(q.Get(name)); q.Has(name) && (on || err != nil) {
			return true
		}
	}
	return false
}
