package store

import (
	"fmt"
	"net/http"
	"net/url"
	"sort"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// selection is what of a resource a client wants to see.
type selection struct {
	namespace string // "": all
	labels    labels.Selector
	fields    fields.Selector // only metadata.name and metadata.namespace
}

// selectionOf reads the selectors of a request. Fields that do not exist are
// the API server's to refuse.
func (a asking) selectionOf(q url.Values) (selection, error) {
	s := selection{namespace: a.info.Namespace}
	var err error
	if s.labels, err = labels.Parse(q.Get("labelSelector")); err != nil {
		return s, fmt.Errorf("labelSelector: %w", err)
	}
	if s.fields, err = fields.ParseSelector(q.Get("fieldSelector")); err != nil {
		return s, fmt.Errorf("fieldSelector: %w", err)
	}
	return s, nil
}

// key is true if an object of that name may be shown.
func (s selection) key(k objectKey) bool {
	return (s.namespace == "" || s.namespace == k.namespace) &&
		s.fields.Matches(fields.Set{"metadata.name": k.name, "metadata.namespace": k.namespace})
}

// object is true if o is shown; o may be nil.
func (s selection) object(o *unstructured.Unstructured) bool {
	return o != nil && s.labels.Matches(labels.Set(o.GetLabels()))
}

// declaredQuery is the query that gets every declared object of a selection:
// labels are matched here, since a declared object that does not match still
// hides the world's object of the same name. Pages are not offered: a page
// would have to remember a world that is gone by then.
func declaredQuery(q url.Values) url.Values {
	out := url.Values{}
	for _, k := range []string{"fieldSelector", "resourceVersion", "resourceVersionMatch", "timeoutSeconds"} {
		if v := q.Get(k); v != "" {
			out.Set(k, v)
		}
	}
	if intent, _, ok := splitVersion(q.Get("resourceVersion")); ok {
		out.Set("resourceVersion", intent)
	}
	return out
}

// declared lists the declared objects that q asks for. A failure comes back as
// the answer to pass on.
func (a asking) declared(r *http.Request, q url.Values) (objects map[objectKey]map[string]any, rv string, failed *answer, err error) {
	got := a.ask(a.query(r, "list", q))
	if !got.ok() {
		return nil, "", got, nil
	}
	list, isList, err := got.object(a.laid.kind + "List")
	if err != nil {
		return nil, "", nil, err
	}
	if !isList {
		return nil, "", nil, fmt.Errorf("the API server answered with kind %v, not a list of %s", list["kind"], a.laid.plural)
	}
	items, _, err := unstructured.NestedFieldNoCopy(list, "items")
	if err != nil {
		return nil, "", nil, err
	}
	rv, _, err = unstructured.NestedString(list, "metadata", "resourceVersion")
	if err != nil {
		return nil, "", nil, err
	}
	all, _ := items.([]any)
	objects = make(map[objectKey]map[string]any, len(all))
	for _, i := range all {
		o, _ := i.(map[string]any)
		// Items of a list need no kind of their own, but those of a watch do.
		o["apiVersion"], o["kind"] = group+"/"+version, a.laid.kind
		objects[keyOf(&unstructured.Unstructured{Object: o})] = o
	}
	return objects, rv, nil, nil
}

// list answers with declared and reported objects together.
func (a asking) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	want, err := a.selectionOf(q)
	if err != nil {
		writeError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	declared, rv, failed, err := a.declared(r, declaredQuery(q))
	switch {
	case err != nil:
		writeError(w, apierrors.NewInternalError(err))
		return
	case failed != nil:
		failed.copyTo(w)
		return
	}
	// The world is read after the intent: what was declared is never taken for
	// something that only the world knows because of that order, and a watch
	// from here misses nothing.
	world := a.laid.shelf.Load()
	list := &unstructured.UnstructuredList{Object: map[string]any{
		"apiVersion": group + "/" + version,
		"kind":       a.laid.kind + "List",
		"metadata":   map[string]any{"resourceVersion": joinVersion(rv, world.rev)},
	}}
	for _, k := range keysOf(want, declared, world.entries) {
		if o := world.lay(k, declared[k]); want.object(o) {
			list.Items = append(list.Items, *o)
		}
	}
	a.laid.render(w, r, http.StatusOK, list)
}

// keysOf returns every key of a selection that is declared or reported, in the
// order of a list.
func keysOf(want selection, declared map[objectKey]map[string]any, world map[objectKey]*entry) []objectKey {
	keys := make([]objectKey, 0, len(declared)+len(world))
	for k := range declared {
		if want.key(k) {
			keys = append(keys, k)
		}
	}
	for k := range world {
		if _, twice := declared[k]; !twice && want.key(k) {
			keys = append(keys, k)
		}
	}
	sort.Slice(keys, func(i, j int) bool {
		if keys[i].namespace != keys[j].namespace {
			return keys[i].namespace < keys[j].namespace
		}
		return keys[i].name < keys[j].name
	})
	return keys
}
