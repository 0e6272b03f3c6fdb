package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/explain"
	"moire.dev/moire/flow"
	"moire.dev/moire/flow/record"
)

// explainHandler answers GET .../namespaces/<project>/explain from the
// snapshots that were published last. Of other projects the answer tells only
// to who may ask about them too. ?record=ID asks about something that happened.
type explainHandler struct {
	loop    *loop
	rights  rights
	archive *flow.Archive
}

func (h explainHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	project, ok := virtualRead(w, r)
	if !ok {
		return
	}
	q, err := query(r, project)
	var happened *record.Record
	if id := r.URL.Query().Get("record"); id != "" && err == nil {
		if happened = recordOf(h.archive, id, project); happened == nil {
			fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("no record with the id %q is kept that you may see; `moire flows -o json` shows what there is", id))
			return
		}
	}
	if err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	f := h.loop.current.Load()
	if f == nil {
		fail(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the control plane is starting; try again in a few seconds")
		return
	}
	if project != "" {
		q.Sees = h.rights.sees(r, project)
	}
	var answer explain.Answer
	if happened != nil {
		answer = explain.Happened(happened, q.Sees, nil, f.snaps)
	} else {
		answer = explain.Packet(q, f.snaps)
	}
	if r.URL.Query().Get("output") == "text" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		answer.Text(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the caller may be gone
}

// recordOf finds the record with an id: of a request rather than of its session,
// and the newest of them. nil: none is kept.
func recordOf(a *flow.Archive, id, project string) *record.Record {
	all := a.Query(flow.Filter{ID: id, Project: project})
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Request != nil {
			return &all[i]
		}
	}
	if len(all) == 0 {
		return nil
	}
	return &all[len(all)-1]
}

// query reads the parameters.
func query(r *http.Request, project string) (explain.Query, error) {
	v := r.URL.Query()
	q := explain.Query{From: v.Get("from"), To: v.Get("to"), Project: project, Network: v.Get("network"), Name: v.Get("name"), Protocol: v.Get("protocol")}
	if q.Protocol == "" {
		q.Protocol = v.Get("proto")
	}
	if s := v.Get("port"); s != "" {
		port, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return q, fmt.Errorf("port=%q is not a port; write 1 to 65535", s)
		}
		q.Port = uint16(port)
	}
	switch v.Get("output") {
	case "", "json", "text":
	default:
		return q, fmt.Errorf("output=%q is not known; write json or text", v.Get("output"))
	}
	var err error
	if q.IPv6, err = flag(v, "ipv6"); err != nil {
		return q, err
	}
	q.Request, err = requestOf(v)
	return q, err
}

// requestOf reads request, header, claim and external; nil: no request is asked
// about.
func requestOf(v url.Values) (*explain.Request, error) {
	if !v.Has("request") {
		return nil, nil
	}
	r, err := explain.ParseRequest(v.Get("request"))
	if err != nil {
		return nil, err
	}
	return r, r.Add(v["header"], v["claim"], v.Get("external"))
}
