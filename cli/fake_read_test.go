package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"moire.dev/moire/node/local"
)

func (f *fakeAPI) get(w http.ResponseWriter, r *http.Request, t fakeTarget) {
	if r.URL.Query().Get("watch") == "true" {
		f.watch(w, r, t)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	q := r.URL.Query()
	list := f.matching(t, q.Get("labelSelector"), q.Get("fieldSelector"))
	if t.name != "" {
		object := f.objects[r.URL.Path]
		if object == nil {
			fakeNotFound(w, t)
			return
		}
		list = []map[string]any{object}
	}
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "as=Table"):
		json.NewEncoder(w).Encode(f.table(t, list, q.Get("includeObject")))
	case t.name != "":
		json.NewEncoder(w).Encode(list[0])
	default:
		items := []any{}
		for _, o := range list {
			items = append(items, o)
		}
		json.NewEncoder(w).Encode(map[string]any{"kind": t.kind.Kind + "List", "apiVersion": t.kind.APIVersion(),
			"metadata": map[string]any{"resourceVersion": strconv.Itoa(f.version)}, "items": items})
	}
}

// table has the columns name, VNI (networks), Age and, with priority 1, Reason.
func (f *fakeAPI) table(t fakeTarget, list []map[string]any, include string) map[string]any {
	rows := []any{}
	for _, o := range list {
		meta := o["metadata"].(map[string]any)
		status, _ := o["status"].(map[string]any)
		spec, _ := o["spec"].(map[string]any)
		row := map[string]any{"cells": []any{meta["name"], status["vni"], spec["prefixes"], "5m", status["reason"]}}
		if include != "None" {
			row["object"] = map[string]any{"kind": "PartialObjectMetadata", "metadata": meta}
		}
		if prefixes, err := json.Marshal(spec["prefixes"]); err == nil && spec["prefixes"] != nil {
			row["cells"].([]any)[2] = string(prefixes)
		}
		rows = append(rows, row)
	}
	return map[string]any{"kind": "Table", "apiVersion": "meta.k8s.io/v1",
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(f.version)},
		"columnDefinitions": []any{
			map[string]any{"name": "Name", "priority": 0}, map[string]any{"name": "VNI", "priority": 0},
			map[string]any{"name": "Prefixes", "priority": 0}, map[string]any{"name": "Age", "priority": 0},
			map[string]any{"name": "Reason", "priority": 1},
		}, "rows": rows}
}

func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request, t fakeTarget) {
	q := r.URL.Query()
	from, err := strconv.Atoi(q.Get("resourceVersion"))
	if err != nil {
		fakeStatus(w, 400, "BadRequest", "resourceVersion: "+err.Error(), nil)
		return
	}
	me := &fakeWatch{version: from}
	f.mu.Lock()
	if from < f.first {
		f.mu.Unlock()
		fakeStatus(w, 410, "Expired", "too old resource version", nil)
		return
	}
	f.watches[me] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watches, me)
	}()
	w.(http.Flusher).Flush()
	for {
		f.mu.Lock()
		gone := me.version < f.first
		var lines []any
		for _, e := range f.events {
			if e.version > me.version && f.inside(e.path, e.object, t, q.Get("labelSelector"), q.Get("fieldSelector")) {
				var object any = e.object
				if strings.Contains(r.Header.Get("Accept"), "as=Table") {
					object = f.table(t, []map[string]any{e.object}, "")
				}
				lines = append(lines, map[string]any{"type": e.kind, "object": object})
			}
		}
		next, changed := f.version, f.changed
		f.mu.Unlock()
		if gone {
			json.NewEncoder(w).Encode(map[string]any{"type": "ERROR", "object": map[string]any{"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}})
			return
		}
		for _, l := range lines {
			json.NewEncoder(w).Encode(l)
		}
		w.(http.Flusher).Flush()
		f.mu.Lock()
		me.version = next
		f.mu.Unlock()
		select {
		case <-changed:
		case <-f.closed:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// fakeAgent answers at a node's socket and remembers what it was asked.
type fakeAgent struct {
	server *http.Server
	done   chan struct{}
	mu     sync.Mutex
	log    strings.Builder
}

func newFakeAgent(path string) (*fakeAgent, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	a := &fakeAgent{done: make(chan struct{})}
	a.server = &http.Server{Handler: a}
	go func() {
		defer close(a.done)
		a.server.Serve(l)
	}()
	return a, nil
}

func (a *fakeAgent) close() {
	a.server.Close()
	<-a.done
}

func (a *fakeAgent) requests() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.String()
}

func (a *fakeAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	a.mu.Lock()
	fmt.Fprintf(&a.log, "%s %s %s\n", r.Method, r.URL.Path, body)
	a.mu.Unlock()
	switch r.URL.Path {
	case local.AttachPath:
		var req local.Attach
		if err := json.Unmarshal(body, &req); err != nil || req.Networks[0] == "absent" {
			w.WriteHeader(http.StatusNotFound)
			json.NewEncoder(w).Encode(local.Problem{Error: "there is no Network shop/absent"})
			return
		}
		out := local.Attached{Warnings: []string{"the control plane is away"}}
		for i, n := range req.Networks {
			out.Interfaces = append(out.Interfaces, local.Interface{Network: n, IfName: "eth" + strconv.Itoa(i), VNI: 7, MAC: "02:00:01:00:00:01", MTU: 1450,
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i), 5}), netip.MustParseAddr("fd00::5")}})
		}
		json.NewEncoder(w).Encode(out)
	case local.DetachPath:
		if strings.Contains(string(body), "ghost") {
			w.WriteHeader(http.StatusNotFound)
			json.NewEncoder(w).Encode(local.Problem{Error: "shop/ghost is not attached here"})
			return
		}
		io.WriteString(w, "{}")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}
