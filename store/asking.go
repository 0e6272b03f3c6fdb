package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// asking is one request for a resource that has a world side. next is the API
// server proper, which knows the intent.
type asking struct {
	laid *laidResource
	next http.Handler
	info *request.RequestInfo
}

// answer is what next said.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

func (a *answer) ok() bool { return a.code >= 200 && a.code < 300 }

// copyTo passes the answer on as it is.
func (a *answer) copyTo(w http.ResponseWriter) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	w.WriteHeader(a.code)
	w.Write(a.body.Bytes()) // the client is gone if this fails
}

// object returns the answer as an object of the asked kind; ok is false if it
// is something else, such as a Status.
func (a *answer) object(kind string) (o map[string]any, ok bool, err error) {
	// Not encoding/json: whole numbers must stay whole.
	if err := utiljson.Unmarshal(a.body.Bytes(), &o); err != nil {
		return nil, false, fmt.Errorf("the API server answered with something that is not JSON: %w", err)
	}
	return o, o["kind"] == kind, nil
}

// plain returns r as a request that gets plain JSON, whatever r accepts.
func plain(ctx context.Context, r *http.Request) *http.Request {
	c := r.Clone(ctx)
	c.Header.Set("Accept", "application/json")
	c.Header.Del("Accept-Encoding")
	return c
}

// ask runs r, with plain JSON as answer.
func (a asking) ask(r *http.Request) *answer {
	out := &answer{header: http.Header{}}
	a.next.ServeHTTP(out, plain(r.Context(), r))
	out.WriteHeader(http.StatusOK)
	return out
}

// query returns r with another verb and query, and without a body.
func (a asking) query(r *http.Request, verb string, q url.Values) *http.Request {
	info := *a.info
	info.Verb = verb
	c := r.Clone(request.WithRequestInfo(r.Context(), &info))
	c.Method, c.Body, c.ContentLength = http.MethodGet, http.NoBody, 0
	c.URL.RawQuery = q.Encode()
	c.RequestURI = c.URL.RequestURI()
	return c
}

// key names the object that the request is about.
func (a asking) key() objectKey { return objectKey{a.info.Namespace, a.info.Name} }

// get answers for one object.
func (a asking) get(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if intent, _, ok := splitVersion(q.Get("resourceVersion")); ok {
		q.Set("resourceVersion", intent)
	}
	got := a.ask(a.query(r, a.info.Verb, q))
	if got.code == http.StatusNotFound {
		if o := a.laid.shelf.Load().lay(a.key(), nil); o != nil {
			a.laid.render(w, r, http.StatusOK, o)
			return
		}
	}
	a.show(w, r, got)
}

// show passes on an answer about one object, with the world laid over it.
func (a asking) show(w http.ResponseWriter, r *http.Request, got *answer) {
	if !got.ok() {
		got.copyTo(w)
		return
	}
	declared, ok, err := got.object(a.laid.kind)
	switch {
	case err != nil:
		writeError(w, apierrors.NewInternalError(err))
	case !ok:
		got.copyTo(w)
	default:
		u := &unstructured.Unstructured{Object: declared}
		a.laid.render(w, r, got.code, a.laid.shelf.Load().lay(keyOf(u), declared))
	}
}

// refuse makes an error whose message is for people.
func refuse(code int32, reason metav1.StatusReason, resource, name, message string) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message,
		Details: &metav1.StatusDetails{Group: group, Kind: resource, Name: name},
	}}
}

// writeError answers with a Status, always as JSON.
func writeError(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.ErrStatus
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	body, merr := json.Marshal(status)
	if merr != nil {
		http.Error(w, err.Error(), int(status.Code))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	w.Write(append(body, '\n')) // the client is gone if this fails
}
