package store

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

// watching is one client that watches a resource: what it has been shown, and
// what is needed to show the next thing. One goroutine owns it.
type watching struct {
	asking
	want     selection
	accepted accepted
	w        http.ResponseWriter
	ctx      context.Context

	declared map[objectKey]map[string]any
	shown    map[objectKey]bool
	world    *shelf
	intent   string // resourceVersion of the newest thing heard from next
	bookmark bool   // the client takes bookmarks
}

// watch answers with the declared objects' events and the world's, merged.
func (a asking) watch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	want, err := a.selectionOf(q)
	if err != nil {
		writeError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	form, problem := accept(r, true)
	if problem == nil && r.Header.Get("Upgrade") != "" {
		problem = notAcceptable("watches over WebSocket are not offered for " + a.laid.plural + "; leave the header Upgrade out")
	}
	if problem != nil {
		writeError(w, problem)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	s := &watching{asking: a, want: want, accepted: form, w: w, ctx: ctx, bookmark: q.Get("allowWatchBookmarks") == "true"}

	a.laid.watched(+1)
	defer a.laid.watched(-1)
	start := startOf(q)
	from, known := s.begin(r, start)
	if !known {
		cancel()
		return
	}
	events := s.hear(r.WithContext(ctx), q)
	defer events.wait()
	defer cancel()
	if failed := events.failed(); failed != nil {
		failed.copyTo(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(http.StatusOK)
	if err := s.flush(); err != nil {
		return
	}
	if s.catchUp(start, from) == nil {
		s.merge(events)
	}
}

// start says where a watch begins.
type start struct {
	initial bool   // show what is there first
	end     bool   // and then say that this was all (sendInitialEvents)
	version string // "", "0" or the resourceVersion to start from or after
	intent  string
	world   int64
	both    bool // version has both sides
}

func startOf(q url.Values) start {
	s := start{version: q.Get("resourceVersion"), end: q.Get("sendInitialEvents") == "true"}
	s.intent, s.world, s.both = splitVersion(s.version)
	s.initial = s.end || s.version == "" || s.version == "0"
	return s
}

// begin finds out what the client has seen already. It returns the world as
// the client knows it; false if it has answered with an error.
func (s *watching) begin(r *http.Request, at start) (map[objectKey]*entry, bool) {
	s.world = s.laid.shelf.Load()
	var from map[objectKey]*entry // nothing, unless the version says so
	if at.both && !at.initial {
		var known bool
		if from, known = s.world.at(at.world); !known {
			writeError(s.w, apierrors.NewResourceExpired("the world has moved on since this resourceVersion; list again and watch from there"))
			return nil, false
		}
	}
	q := url.Values{}
	if f := r.URL.Query().Get("fieldSelector"); f != "" {
		q.Set("fieldSelector", f)
	}
	switch {
	case !at.initial:
		q.Set("resourceVersion", at.intent)
		q.Set("resourceVersionMatch", "Exact")
	case at.version != "":
		q.Set("resourceVersion", at.intent)
		q.Set("resourceVersionMatch", "NotOlderThan")
	}
	declared, rv, failed, err := s.asking.declared(r, q)
	switch {
	case err != nil:
		writeError(s.w, apierrors.NewInternalError(err))
		return nil, false
	case failed != nil:
		failed.copyTo(s.w)
		return nil, false
	}
	s.declared, s.intent, s.shown = declared, rv, map[objectKey]bool{}
	if !at.initial {
		s.intent = at.intent
	}
	return from, true
}

// catchUp shows what the client does not know yet, before anything new.
func (s *watching) catchUp(at start, from map[objectKey]*entry) error {
	if !at.initial {
		for _, k := range keysOf(s.want, s.declared, from) {
			s.shown[k] = s.want.object(layEntry(s.declared[k], from[k], 0))
		}
	}
	for _, k := range keysOf(s.want, s.declared, s.world.entries) {
		if !at.initial && s.world.entries[k] == from[k] {
			continue // it has seen that
		}
		if err := s.show(k, nil); err != nil {
			return err
		}
	}
	for k := range from { // what went meanwhile
		if s.want.key(k) && s.world.entries[k] == nil {
			if err := s.show(k, layEntry(s.declared[k], from[k], s.world.rev)); err != nil {
				return err
			}
		}
	}
	if at.end {
		return s.mark(map[string]any{metav1.InitialEventsAnnotationKey: "true"})
	}
	return nil
}

// merge passes on events until the client goes or next ends the watch.
func (s *watching) merge(events *hearing) error {
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case e, open := <-events.out:
			if !open {
				return nil
			}
			if err := s.heard(e); err != nil {
				return err
			}
		case <-s.world.next:
			if err := s.worldChanged(); err != nil {
				return err
			}
		}
	}
}

// heard handles an event of the declared objects.
func (s *watching) heard(e heardEvent) error {
	u := &unstructured.Unstructured{Object: e.Object}
	if e.Type == watch.Error {
		return s.send(e.Type, u)
	}
	s.intent = u.GetResourceVersion()
	k := keyOf(u)
	switch e.Type {
	case watch.Bookmark:
		return s.mark(nil)
	case watch.Deleted:
		delete(s.declared, k)
		if err := s.drop(k, s.world.lay(k, e.Object)); err != nil {
			return err
		}
	default:
		if s.declared[k] == nil {
			if err := s.drop(k, s.world.lay(k, nil)); err != nil {
				return err
			}
		}
		s.declared[k] = e.Object
	}
	return s.show(k, nil)
}

// drop tells the client that an object is gone, before another one of the same
// name takes its place: the declared one and the reported one are not the same.
func (s *watching) drop(k objectKey, last *unstructured.Unstructured) error {
	if !s.shown[k] || last == nil {
		return nil
	}
	delete(s.shown, k)
	return s.send(watch.Deleted, last)
}

// worldChanged handles everything that changed in the world since s.world.
func (s *watching) worldChanged() error {
	now := s.laid.shelf.Load()
	changes, known := now.after(s.world.rev)
	if !known {
		status := apierrors.NewResourceExpired("the world changed faster than this watch could follow; list again and watch from there").ErrStatus
		raw, err := json.Marshal(status)
		if err != nil {
			return err
		}
		return s.sendRaw(watch.Error, raw)
	}
	s.world = now
	done := map[objectKey]bool{}
	for _, c := range changes {
		if done[c.key] || !s.want.key(c.key) {
			continue
		}
		done[c.key] = true
		var last *unstructured.Unstructured
		if now.entries[c.key] == nil && s.declared[c.key] == nil {
			last = layEntry(nil, c.old, now.rev)
		}
		if err := s.show(c.key, last); err != nil {
			return err
		}
	}
	if s.bookmark && len(done) > 0 {
		return s.mark(nil) // so that the client resumes here, not at an old object's version
	}
	return nil
}

// show brings the client up to date about one object. last is what it was, if
// it is gone.
func (s *watching) show(k objectKey, last *unstructured.Unstructured) error {
	if !s.want.key(k) {
		return nil
	}
	o := s.world.lay(k, s.declared[k])
	visible := s.want.object(o)
	was := s.shown[k]
	switch {
	case visible && was:
		return s.send(watch.Modified, o)
	case visible:
		s.shown[k] = true
		return s.send(watch.Added, o)
	case was:
		delete(s.shown, k)
		if o == nil {
			o = last
		}
		if o == nil { // both sides went at once
			o = &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": group + "/" + version, "kind": s.laid.kind,
				"metadata": map[string]any{"name": k.name, "namespace": k.namespace, "resourceVersion": joinVersion(s.intent, s.world.rev)},
			}}
		}
		return s.send(watch.Deleted, o)
	}
	return nil
}

// mark sends a bookmark: the version from which the client can resume.
func (s *watching) mark(annotations map[string]any) error {
	if !s.bookmark {
		return nil
	}
	meta := map[string]any{"resourceVersion": joinVersion(s.intent, s.world.rev), "creationTimestamp": nil}
	if annotations != nil {
		meta["annotations"] = annotations
	}
	return s.send(watch.Bookmark, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": group + "/" + version, "kind": s.laid.kind, "metadata": meta,
	}})
}

func (s *watching) send(t watch.EventType, o *unstructured.Unstructured) error {
	var out any = o.Object
	if t != watch.Error {
		var err error
		if out, err = s.laid.convertTo(s.ctx, &s.accepted, o); err != nil {
			return err
		}
		s.accepted.table.NoHeaders = true // only the first table needs them
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return s.sendRaw(t, raw)
}

func (s *watching) sendRaw(t watch.EventType, raw json.RawMessage) error {
	frame, err := json.Marshal(struct {
		Type   watch.EventType `json:"type"`
		Object json.RawMessage `json:"object"`
	}{t, raw})
	if err != nil {
		return err
	}
	if _, err := s.w.Write(append(frame, '\n')); err != nil {
		return err
	}
	return s.flush()
}

func (s *watching) flush() error { return http.NewResponseController(s.w).Flush() }
