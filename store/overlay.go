package store

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// worldPause is how long the world must be quiet before it is shown again: a
// node that reports a hundred workloads is one step, not a hundred.
const worldPause = 10 * time.Millisecond

// worldShare times as long as it took to show the world, nothing is shown.
const worldShare = 4

// worldWait is how long a request waits for the world after a start.
const worldWait = 10 * time.Second

// lookedAt is how long after a request the shelf of a resource is kept up to
// date. A world that nobody looks at costs nothing.
const lookedAt = 10 * time.Second

// overlay sits inside the handler chain, behind authentication, authorization
// and audit. It answers virtual resources and lays the world over workloads
// and nodes; everything else goes through untouched.
type overlay struct {
	virtual  map[string]Virtual
	laid     map[string]*laidResource // by plural name; fixed
	world    atomic.Pointer[World]
	replaced chan struct{} // holds one token after setWorld, and when somebody looks
	stopping chan struct{} // closed when run's context ends
	known    chan struct{} // closed when the world is on the shelves
	know     func()        // closes it, once
}

// laidResource is one resource that has a world side.
type laidResource struct {
	kind   string
	plural string
	table  tables
	shelf  atomic.Pointer[shelf]

	mu       sync.Mutex
	watchers int
	asked    time.Time     // when somebody looked last
	followed bool          // the shelf is kept up to date
	awaited  chan struct{} // closed when the shelf is new; nil: nobody waits
}

// begin reports whether anybody wants the shelf, and who waits for it.
func (l *laidResource) begin(now time.Time) (wanted bool, awaited chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followed = l.watchers > 0 || now.Sub(l.asked) < lookedAt
	awaited, l.awaited = l.awaited, nil
	return l.followed, awaited
}

// watched counts who watches.
func (l *laidResource) watched(by int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers += by
	l.asked = time.Now()
}

func newOverlay(virtual []Virtual) (*overlay, error) {
	o := &overlay{
		virtual:  map[string]Virtual{},
		laid:     map[string]*laidResource{},
		replaced: make(chan struct{}, 1),
		stopping: make(chan struct{}),
		known:    make(chan struct{}),
	}
	o.know = sync.OnceFunc(func() { close(o.known) })
	for _, v := range virtual {
		o.virtual[v.Resource] = v
	}
	start := firstRevision()
	for _, l := range []*laidResource{{kind: "Workload", plural: "workloads"}, {kind: "Node", plural: "nodes"}} {
		table, err := tablesOf(l.plural)
		if err != nil {
			return nil, err
		}
		l.table = table
		l.shelf.Store(newShelf(start))
		o.laid[l.plural] = l
	}
	return o, nil
}

func (o *overlay) setWorld(w World) {
	o.world.Store(&w)
	o.ring()
}

func (o *overlay) ring() {
	select {
	case o.replaced <- struct{}{}:
	default: // a token is there already
	}
}

// look says that somebody looks at a resource. When nobody did lately, it waits
// until the shelf is new.
func (o *overlay) look(ctx context.Context, l *laidResource) {
	l.mu.Lock()
	l.asked = time.Now()
	if l.followed {
		l.mu.Unlock()
		return
	}
	if l.awaited == nil {
		l.awaited = make(chan struct{})
	}
	awaited := l.awaited
	l.mu.Unlock()
	o.ring()
	late := time.NewTimer(worldWait)
	defer late.Stop()
	select {
	case <-awaited:
	case <-ctx.Done():
	case <-o.stopping:
	case <-late.C: // what there is, is shown
	}
}

// run keeps the shelves up to date until ctx ends. It is the only writer.
func (o *overlay) run(ctx context.Context) error {
	defer close(o.stopping)
	for {
		begin := time.Now()
		var changed <-chan struct{}
		world := o.world.Load()
		if world != nil && *world != nil {
			changed = (*world).Changed() // before Objects, so that nothing is missed
		}
		for _, l := range o.laid {
			wanted, awaited := l.begin(begin)
			if !wanted {
				continue
			}
			var objects []*unstructured.Unstructured
			if changed != nil {
				objects = (*world).Objects(l.plural, "")
			}
			now := l.shelf.Load()
			if next := now.follow(l.kind, objects); next != now {
				l.shelf.Store(next)
				close(now.next)
			}
			if awaited != nil {
				close(awaited)
			}
		}
		if changed != nil {
			o.know()
		}
		// A large world under churn must not cost more than a part of a core.
		pause := max(worldPause, worldShare*time.Since(begin))
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-o.replaced:
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-o.replaced:
		case <-time.After(pause):
		}
	}
}

// wrap returns the handler that reads go through.
func (o *overlay) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if !ok || !info.IsResourceRequest || info.APIGroup != group || info.APIVersion != version {
			next.ServeHTTP(w, r)
			return
		}
		if v, ok := o.virtual[info.Resource]; ok {
			o.serveVirtual(w, r, v, info)
			return
		}
		l, ok := o.laid[info.Resource]
		if !ok || seesIntentOnly(r) {
			next.ServeHTTP(w, r)
			return
		}
		a := asking{laid: l, next: next, info: info}
		switch info.Verb {
		case "get", "list", "watch":
			if !o.await(r.Context()) {
				writeError(w, apierrors.NewServiceUnavailable("the control plane has just started and does not know yet how the nodes are; try again in a moment"))
				return
			}
		}
		o.look(r.Context(), l)
		switch {
		case r.Method == http.MethodHead || info.Verb == "deletecollection":
			next.ServeHTTP(w, r)
		case info.Verb == "list":
			a.list(w, r)
		case info.Verb == "watch":
			a.watch(w, r)
		case info.Verb == "get":
			a.get(w, r)
		default:
			a.write(w, r)
		}
	})
}

// await waits until the world is known.
func (o *overlay) await(ctx context.Context) bool {
	select {
	case <-o.known:
		return true
	default:
	}
	late := time.NewTimer(worldWait)
	defer late.Stop()
	select {
	case <-o.known:
		return true
	case <-ctx.Done():
	case <-o.stopping:
	case <-late.C:
	}
	return false
}

// seesIntentOnly is true for the loopback client: our own controllers act on
// what is declared, never on what they themselves show.
func seesIntentOnly(r *http.Request) bool {
	u, ok := request.UserFrom(r.Context())
	return ok && u.GetName() == user.APIServerUser
}
