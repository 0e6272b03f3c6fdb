package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/explain"
)

// explainHandler answers GET .../namespaces/<project>/explain from the
// snapshots that were published last. Of other projects the answer tells only
// to who may ask about them too.
type explainHandler struct {
	loop   *loop
	rights rights
}

func (h explainHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	project, ok := virtualRead(w, r)
	if !ok {
		return
	}
	q, err := query(r, project)
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
	answer := explain.Packet(q, f.snaps)
	if r.URL.Query().Get("output") == "text" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		answer.Text(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the caller may be gone
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
	return q, nil
}
