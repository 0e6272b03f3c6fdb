package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"moire.dev/moire/cli/manifest"
	"moire.dev/moire/cli/remote"
)

// fakeAPI is an API server for the tests of this package: enough of REST,
// Tables, watch and server-side apply to see what moire asks and shows. What
// the real server decides is tested with the real server, elsewhere.
//
// Annotations steer it: test/reject "field: message" refuses the object,
// test/conflict "field" says that somebody else owns the field, test/owner who,
// test/keep makes a deleted object stay.
type fakeAPI struct {
	mu      sync.Mutex
	objects map[string]map[string]any // by path
	version int
	events  []fakeEvent
	first   int // events before this version are forgotten
	watches map[*fakeWatch]bool
	virtual map[string]string
	delay   time.Duration
	changed chan struct{}
	closed  chan struct{}
}

type fakeEvent struct {
	version int
	path    string
	kind    string
	object  map[string]any
}

type fakeWatch struct{ version int }

func newFakeAPI() *fakeAPI {
	return &fakeAPI{
		objects: map[string]map[string]any{}, version: 100, watches: map[*fakeWatch]bool{},
		virtual: map[string]string{}, changed: make(chan struct{}), closed: make(chan struct{}),
	}
}

func (f *fakeAPI) close() { close(f.closed) }

func (f *fakeAPI) setVirtual(name, body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.virtual[name] = body
}

func (f *fakeAPI) setDelay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

func (f *fakeAPI) watchers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watches)
}

func (f *fakeAPI) allSent() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watches {
		if w.version < f.version {
			return false
		}
	}
	return true
}

func (f *fakeAPI) compact() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	f.first, f.events = f.version, nil
}

// put puts the objects of a file into the server, status included.
func (f *fakeAPI) put(text string) error {
	docs, err := manifest.Parse("put", []byte(text))
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range docs {
		for _, k := range fakeKinds() {
			if k.Kind == d.Kind && k.APIVersion() == d.APIVersion {
				f.keep(k.Path(d.Namespace, d.Name), d.Object)
			}
		}
	}
	return nil
}

// fakeKinds are ours and one that only discovery knows.
func fakeKinds() []remote.Kind {
	return append(remote.Kinds(), remote.Kind{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding", Plural: "rolebindings", Singular: "rolebinding", Namespaced: true})
}

// keep stores an object, gives it metadata and tells the watches.
func (f *fakeAPI) keep(path string, object map[string]any) map[string]any {
	f.version++
	kind := "ADDED"
	meta := object["metadata"].(map[string]any)
	meta["uid"], meta["creationTimestamp"] = "uid-"+strconv.Itoa(f.version), "2026-01-02T03:04:05Z"
	if old := f.objects[path]; old != nil {
		kind = "MODIFIED"
		meta["uid"] = old["metadata"].(map[string]any)["uid"]
	}
	meta["resourceVersion"] = strconv.Itoa(f.version)
	meta["managedFields"] = []any{map[string]any{"manager": "moire", "operation": "Apply"}}
	f.objects[path] = object
	f.tell(kind, path, object)
	return object
}

func (f *fakeAPI) tell(kind, path string, object map[string]any) {
	f.events = append(f.events, fakeEvent{f.version, path, kind, object})
	close(f.changed)
	f.changed = make(chan struct{})
}

// target is what a path means.
type fakeTarget struct {
	kind            remote.Kind
	namespace, name string
}

func fakeParse(path string) (fakeTarget, bool) {
	for _, k := range fakeKinds() {
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(k.Path("", ""), k.Plural))
		if !ok {
			continue
		}
		var t fakeTarget
		part := strings.Split(rest, "/")
		if k.Namespaced && part[0] == "namespaces" && len(part) > 2 {
			t.namespace, part = part[1], part[2:]
		}
		if part[0] != k.Plural || len(part) > 2 {
			continue
		}
		t.kind = k
		if len(part) == 2 {
			t.name = part[1]
		}
		return t, true
	}
	return fakeTarget{}, false
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	delay := f.delay
	f.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return
	}
	user := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if user != "admin" && user != "tenant" {
		fakeStatus(w, 401, "Unauthorized", "Unauthorized", nil)
		return
	}
	if user == "tenant" && !strings.Contains(r.URL.Path, "/namespaces/shop/") {
		fakeStatus(w, 403, "Forbidden", fmt.Sprintf("%s is forbidden: User %q cannot get it", r.URL.Path, user), nil)
		return
	}
	if f.serveFixed(w, r) {
		return
	}
	t, ok := fakeParse(r.URL.Path)
	if !ok {
		fakeStatus(w, 404, "NotFound", "the server could not find the requested resource", nil)
		return
	}
	switch r.Method {
	case http.MethodGet:
		f.get(w, r, t)
	case http.MethodPatch:
		f.patch(w, r, t)
	case http.MethodDelete:
		f.delete(w, r, t)
	default:
		fakeStatus(w, 405, "MethodNotAllowed", r.Method+" is not allowed", nil)
	}
}

// serveFixed answers what does not depend on objects.
func (f *fakeAPI) serveFixed(w http.ResponseWriter, r *http.Request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch path := r.URL.Path; {
	case path == "/version":
		io.WriteString(w, `{"gitVersion":"v1.37.2","platform":"linux/amd64"}`)
	case path == "/readyz":
		io.WriteString(w, "ok")
	case path == "/api":
		io.WriteString(w, `{"items":[]}`)
	case path == "/apis":
		io.WriteString(w, `{"items":[{"metadata":{"name":"rbac.authorization.k8s.io"},"versions":[{"version":"v1","resources":[
			{"resource":"rolebindings","singularResource":"rolebinding","scope":"Namespaced","responseKind":{"kind":"RoleBinding"}}]}]}]}`)
	case strings.HasSuffix(path, "/flows"):
		w.Header().Set("X-Moire-Records-Lost", "7")
		io.WriteString(w, f.virtual["flows"])
	case strings.HasSuffix(path, "/explain"):
		io.WriteString(w, strings.ReplaceAll(f.virtual["explain"], "$QUERY", r.URL.Path+" "+r.URL.Query().Encode()))
	default:
		return false
	}
	return true
}

func fakeStatus(w http.ResponseWriter, code int, reason, message string, causes []map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code,
		"details": map[string]any{"causes": causes},
	})
}

func (f *fakeAPI) patch(w http.ResponseWriter, r *http.Request, t fakeTarget) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var patch map[string]any
	if err := json.NewDecoder(r.Body).Decode(&patch); err != nil || r.Header.Get("Content-Type") != "application/apply-patch+yaml" {
		fakeStatus(w, 400, "BadRequest", fmt.Sprint("not an apply patch: ", err), nil)
		return
	}
	if t.kind.Namespaced && f.objects["/api/v1/namespaces/"+t.namespace] == nil {
		fakeStatus(w, 404, "NotFound", fmt.Sprintf("namespaces %q not found", t.namespace), nil)
		return
	}
	meta := patch["metadata"].(map[string]any)
	notes, _ := meta["annotations"].(map[string]any)
	if text, ok := notes["test/reject"].(string); ok {
		field, message, _ := strings.Cut(text, ": ")
		fakeStatus(w, 422, "Invalid", t.kind.Kind+" is invalid", []map[string]any{{"reason": "FieldValueInvalid", "field": field, "message": message}})
		return
	}
	if field, ok := notes["test/conflict"].(string); ok && r.URL.Query().Get("force") != "true" {
		owner, named := notes["test/owner"].(string)
		if !named {
			owner = "helm"
		}
		fakeStatus(w, 409, "Conflict", "Apply failed with 1 conflict", []map[string]any{{"reason": "FieldManagerConflict", "field": field, "message": `conflict with "` + owner + `"`}})
		return
	}
	old := f.objects[r.URL.Path]
	if t.kind.Plural == "networks" && old == nil {
		if spec, ok := patch["spec"].(map[string]any); ok && spec["default"] == nil {
			spec["default"] = "open"
		}
	}
	merged := fakeMerge(old, patch).(map[string]any)
	switch {
	case old != nil && reflect.DeepEqual(old, merged):
	case r.URL.Query().Get("dryRun") == "All":
		if old == nil {
			w.WriteHeader(201)
		}
	default:
		if old == nil {
			w.WriteHeader(201)
		}
		merged = f.keep(r.URL.Path, merged)
	}
	json.NewEncoder(w).Encode(merged)
}

// fakeMerge lays patch over old and copies both.
func fakeMerge(old, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	merged := map[string]any{}
	o, _ := old.(map[string]any)
	for k, v := range o {
		merged[k] = fakeMerge(nil, v)
	}
	for k, v := range p {
		merged[k] = fakeMerge(o[k], v)
	}
	return merged
}

func (f *fakeAPI) delete(w http.ResponseWriter, r *http.Request, t fakeTarget) {
	f.mu.Lock()
	defer f.mu.Unlock()
	object := f.objects[r.URL.Path]
	if object == nil {
		fakeNotFound(w, t)
		return
	}
	notes, _ := object["metadata"].(map[string]any)["annotations"].(map[string]any)
	if r.URL.Query().Get("dryRun") == "" && notes["test/keep"] == nil {
		f.version++
		delete(f.objects, r.URL.Path)
		f.tell("DELETED", r.URL.Path, object)
	}
	json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "status": "Success",
		"details": map[string]any{"uid": object["metadata"].(map[string]any)["uid"]}})
}

func fakeNotFound(w http.ResponseWriter, t fakeTarget) {
	fakeStatus(w, 404, "NotFound", fmt.Sprintf("%s %q not found", t.kind.Resource(), t.name), nil)
}

// matching lists the objects of a collection by path.
func (f *fakeAPI) matching(t fakeTarget, selector, fields string) []map[string]any {
	var list []map[string]any
	for _, path := range slices.Sorted(maps.Keys(f.objects)) {
		if f.inside(path, f.objects[path], t, selector, fields) {
			list = append(list, f.objects[path])
		}
	}
	return list
}

func (f *fakeAPI) inside(path string, object map[string]any, t fakeTarget, selector, fields string) bool {
	is, _ := fakeParse(path)
	if is.kind.Plural != t.kind.Plural || t.namespace != "" && is.namespace != t.namespace {
		return false
	}
	meta := object["metadata"].(map[string]any)
	labels, _ := meta["labels"].(map[string]any)
	if key, value, ok := strings.Cut(selector, "="); ok && labels[key] != value {
		return false
	}
	name, ok := strings.CutPrefix(fields, "metadata.name=")
	return !ok || meta["name"] == name
}
