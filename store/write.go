package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// maxBody is the largest body that the API server takes.
const maxBody = 3 << 20

// write passes on a change of one object: without the world's part of its
// resourceVersion, and not if only the world knows the object.
func (a asking) write(w http.ResponseWriter, r *http.Request) {
	body, problem := strippedBody(r)
	if problem == nil {
		problem = a.refused(r)
	}
	if problem != nil {
		writeError(w, problem)
		return
	}
	c := r.Clone(r.Context())
	if body != nil {
		c.Body, c.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		c.Header.Del("Content-Length")
	}
	a.show(w, r, a.ask(c))
}

// refused says why an object that was only reported cannot be changed.
func (a asking) refused(r *http.Request) *apierrors.StatusError {
	creates := r.Method == http.MethodPost ||
		r.Method == http.MethodPatch && strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch")
	e := a.laid.shelf.Load().entries[a.key()]
	if creates || e == nil || a.info.Name == "" {
		return nil
	}
	if got := a.ask(a.query(r, "get", url.Values{})); got.code != http.StatusNotFound {
		return nil // declared, or the API server has its own reason
	}
	return refuse(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, a.laid.plural, a.info.Name,
		fmt.Sprintf("%s %q is not declared, it was reported by %s, so it cannot be changed here; %s",
			strings.ToLower(a.laid.kind), a.info.Name, reporter(e), a.remedy()))
}

func reporter(e *entry) string {
	status, _ := e.object["status"].(map[string]any)
	if node, _ := status["node"].(string); node != "" {
		return "node " + node
	}
	return "its node"
}

func (a asking) remedy() string {
	if a.laid.plural == "nodes" {
		return "stop its agent, or declare it with `kubectl apply --server-side`"
	}
	return fmt.Sprintf("stop the process on that node or run `moire detach --project %s %s` there, or declare it with `kubectl apply --server-side`",
		a.info.Namespace, a.info.Name)
}

// strippedBody returns the body of r if it holds a resourceVersion with a world
// part, without that part. Otherwise it returns nil and r can be read as it was.
func strippedBody(r *http.Request) ([]byte, *apierrors.StatusError) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, apierrors.NewBadRequest("cannot read the body: " + err.Error())
	}
	if len(data) > maxBody {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	if !bytes.Contains(data, []byte("resourceVersion")) {
		return nil, nil
	}
	asJSON := data
	isYAML := strings.Contains(r.Header.Get("Content-Type"), "yaml")
	if isYAML {
		if asJSON, err = yaml.YAMLToJSON(data); err != nil {
			return nil, nil // the API server says what is wrong with it
		}
	}
	var v any
	if json.Unmarshal(asJSON, &v) != nil || !stripVersion(v) {
		return nil, nil
	}
	// Numbers must survive, so decode again without floats.
	if v, err = exact(asJSON); err != nil {
		return nil, nil
	}
	stripVersion(v)
	out, err := json.Marshal(v)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return out, nil // JSON is YAML too
}

func exact(data []byte) (v any, err error) {
	if err := utiljson.Unmarshal(data, &v); err != nil {
		return nil, err
	}
	return v, nil
}

// stripVersion removes the world's part from every resourceVersion that means
// this object: in metadata, in the preconditions of a deletion, in a JSON patch.
func stripVersion(v any) (changed bool) {
	switch v := v.(type) {
	case map[string]any:
		for _, parent := range []string{"metadata", "preconditions"} {
			m, _ := v[parent].(map[string]any)
			changed = stripString(m, "resourceVersion") || changed
		}
	case []any:
		for _, op := range v {
			m, _ := op.(map[string]any)
			if p, _ := m["path"].(string); p == "/metadata/resourceVersion" {
				changed = stripString(m, "value") || changed
			}
		}
	}
	return changed
}

func stripString(m map[string]any, field string) bool {
	s, _ := m[field].(string)
	intent, _, ok := splitVersion(s)
	if ok {
		m[field] = intent
	}
	return ok
}
