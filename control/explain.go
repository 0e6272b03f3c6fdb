package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/explain"
)

// explainHandler answers GET .../namespaces/<project>/explain from the
// snapshots that were published last.
type explainHandler struct{ loop *loop }

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
	answer := explain.Packet(q, f.snaps)
	if r.URL.Query().Get("output") == "text" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		answer.Text(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the caller may be gone
}

// query reads the parameters. Within a project one end must be in it: nobody
// asks about the traffic of others.
func query(r *http.Request, project string) (explain.Query, error) {
	v := r.URL.Query()
	q := explain.Query{From: v.Get("from"), To: v.Get("to"), Project: project, Network: v.Get("network"), Protocol: v.Get("protocol")}
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
	if q.IPv6, err = flag(r, "ipv6"); err != nil {
		return q, err
	}
	if project == "" {
		return q, nil
	}
	mine := func(end string) bool {
		if _, err := netip.ParseAddr(end); err == nil {
			return false
		}
		p, _, other := strings.Cut(end, "/")
		return !other || p == project
	}
	if !mine(q.From) && !mine(q.To) {
		return q, fmt.Errorf("neither from=%q nor to=%q is a Workload of project %s; one end must be", q.From, q.To, project)
	}
	return q, nil
}
