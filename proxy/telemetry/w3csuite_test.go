//go:build judge

package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/proxy/message"
)

// asked is what W3C's suite asks a service for: calls, and what they carry.
type asked []struct {
	URL       string          `json:"url"`
	Arguments json.RawMessage `json:"arguments"`
}

// headOf is a Head with the fields of a request of net/http.
func headOf(h http.Header) *message.Head {
	out := &message.Head{}
	for name, values := range h {
		for _, v := range values {
			out.Add([]byte(strings.ToLower(name)), []byte(v))
		}
	}
	return out
}

// W3C's own suite for Trace Context finds nothing wrong.
func TestW3CSuite(t *testing.T) {
	dir := os.Getenv("MOIRE_TRACE_CONTEXT")
	if dir == "" {
		t.Skip("MOIRE_TRACE_CONTEXT is not the folder test of W3C's trace-context; make traces fetches it and runs this")
	}
	tel := New(Options{Log: quiet()})
	tab := tel.Open(tracedConfig(""))
	workers := make(chan *Worker, 1)
	workers <- tel.Worker(0)
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var calls asked
		if err := json.NewDecoder(r.Body).Decode(&calls); err != nil {
			t.Error(err)
			return
		}
		for _, c := range calls {
			req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, c.URL, bytes.NewReader(c.Arguments))
			if err != nil {
				t.Error(err)
				return
			}
			h := headOf(r.Header)
			var tr Trace
			w := <-workers
			w.Extract(tab, h, &tr)
			w.Inject(tab, h, &tr, nil)
			workers <- w
			for i := range h.Fields {
				if id := h.Fields[i].ID; id == message.Traceparent || id == message.Tracestate {
					req.Header.Add(string(h.Fields[i].Name), string(h.Fields[i].Value))
				}
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
		}
	}))
	defer http.DefaultClient.CloseIdleConnections()
	defer service.Close()
	python := os.Getenv("MOIRE_PYTHON") // one that has aiohttp
	if python == "" {
		python = "python3"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, filepath.Join(dir, "test.py"), service.URL+"/test")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "STRICT_LEVEL=2", "SPEC_LEVEL=2", "HARNESS_PORT="+strings.Split(freePort(t), ":")[1])
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !bytes.Contains(out, []byte("\nOK")) {
		t.Error(err)
	}
}
