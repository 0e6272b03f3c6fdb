package admin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/flow/record"
)

// door is one thing that can be asked for.
type door struct {
	pattern string
	serve   http.HandlerFunc
	is      string
}

func (s *Server) doors() []door {
	return []door{
		{"GET /{$}", s.index, "this list"},
		{"GET /ready", s.ready, "200 when the proxy takes traffic, 503 and why when it does not"},
		{"GET /config", s.config, "the configuration that is served, without its secrets (JSON)"},
		{"GET /listeners", s.listeners, "where callers come in"},
		{"GET /routes", s.routes, "where requests go, rule by rule"},
		{"GET /workloads", s.workloads, "whom it speaks for in tenant networks: mode, identity, certificate"},
		{"GET /clusters", s.clusters, "endpoints: health, ejections, load, latency"},
		{"GET /certs", s.certificates, "certificates: names and expiry"},
		{"GET /stats", s.stats, "figures for people"},
		{"GET /metrics", s.metrics, "figures for Prometheus"},
		{"GET /records", s.records, "the last requests, one a line: ?last=100, ?follow=true, ?verdict=deny and other filters"},
		{"GET /log", s.level, "the log's level"},
		{"POST /log", s.setLevel, "change it: ?level=debug, info, warn or error"},
		{"POST /drain", s.drain, "let what goes on come to its end, then stop"},
		{"GET /build", s.build, "which program this is"},
	}
}

// nothing is behind this path, or not for this method.
func (s *Server) nothing(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, d := range s.doors() {
		if method, path, _ := strings.Cut(d.pattern, " "); strings.TrimSuffix(path, "{$}") == r.URL.Path {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		refuse(w, http.StatusNotFound, "there is no %q here; GET / lists what there is", r.URL.Path)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	refuse(w, http.StatusMethodNotAllowed, "%s is for %s", r.URL.Path, strings.Join(allowed, " and "))
}

// refuse answers with an error, one line.
func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	http.Error(w, fmt.Sprintf(format, args...), status)
}

// inJSON says whether JSON is wanted; when it is neither that nor text, the
// request is refused, and ok is false.
func inJSON(w http.ResponseWriter, r *http.Request, otherwise string) (is, ok bool) {
	format := r.URL.Query().Get("format")
	if format == "" {
		format = otherwise
		if r.Header.Get("Accept") == "application/json" {
			format = "json"
		}
	}
	switch format {
	case "json", "text":
		return format == "json", true
	}
	refuse(w, http.StatusBadRequest, "format=%q is unknown; write text or json", format)
	return false, false
}

// show writes v as JSON or, with text, for people.
func show(w http.ResponseWriter, r *http.Request, v any, text func(io.Writer)) {
	is, ok := inJSON(w, r, "text")
	if !ok {
		return
	}
	if is {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		e.Encode(v) // an error means that nobody reads any more
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	b := bufio.NewWriter(w)
	text(b)
	b.Flush()
}

func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	show(w, r, s.doorNames(), func(w io.Writer) {
		rows := [][]string{}
		for _, d := range s.doors() {
			method, path, _ := strings.Cut(strings.TrimSuffix(d.pattern, "{$}"), " ")
			rows = append(rows, []string{method, path, d.is})
		}
		table(w, nil, rows)
	})
}

func (s *Server) doorNames() (names []string) {
	for _, d := range s.doors() {
		names = append(names, strings.TrimSuffix(d.pattern, "{$}"))
	}
	return names
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if err := s.o.Proxy.Ready(); err != nil {
		refuse(w, http.StatusServiceUnavailable, "not ready: %v", err)
		return
	}
	io.WriteString(w, "ready\n")
}

func (s *Server) config(w http.ResponseWriter, _ *http.Request) {
	cfg := s.o.Proxy.Config()
	if cfg == nil {
		refuse(w, http.StatusServiceUnavailable, "there is no configuration yet")
		return
	}
	b, err := configJSON(cfg)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "%v", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b)
}

func (s *Server) stats(w http.ResponseWriter, r *http.Request) {
	all := map[string]float64{}
	var names []string
	for name, v := range s.o.Telemetry.Stats() {
		all[name] = v
		names = append(names, name)
	}
	show(w, r, all, func(w io.Writer) {
		for _, name := range names {
			fmt.Fprintf(w, "%s: %s\n", plain(name), strconv.FormatFloat(all[name], 'f', -1, 64))
		}
	})
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	s.o.Telemetry.WriteMetrics(w) // an error means that nobody reads any more
}

// mostRecords that can be asked for.
const mostRecords = 100_000

func (s *Server) records(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	last, follow := 100, false
	if text := q.Get("last"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > mostRecords {
			refuse(w, http.StatusBadRequest, "last=%q is not a number of records; write 0 to %d", text, mostRecords)
			return
		}
		last = n
	}
	if text := q.Get("follow"); text != "" {
		var err error
		if follow, err = strconv.ParseBool(text); err != nil {
			refuse(w, http.StatusBadRequest, "follow=%q; write true or false", text)
			return
		}
	}
	is, ok := inJSON(w, r, "json")
	if !ok {
		return
	}
	choose, err := chosen(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	out := recordWriter{choose: choose, json: is, w: w, c: http.NewResponseController(w)}
	if is {
		w.Header().Set("Content-Type", "application/x-ndjson")
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	if follow {
		out.c.Flush() // the headers, so that a reader knows it is heard
		s.o.Telemetry.Follow(r.Context(), last, out.write)
		return
	}
	out.write(s.o.Telemetry.Last(last), 0)
}

// recordWriter writes records, one a line.
type recordWriter struct {
	choose func([]record.Record) []record.Record
	json   bool
	w      io.Writer
	c      *http.ResponseController
}

func (o recordWriter) write(records []record.Record, missed uint64) error {
	o.c.SetWriteDeadline(time.Now().Add(patience)) // see ServeHTTP
	b := bufio.NewWriter(o.w)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	records = o.choose(records)
	if missed > 0 && o.json {
		fmt.Fprintf(b, "{\"missed\":%d}\n", missed)
	} else if missed > 0 {
		fmt.Fprintf(b, "(%d came too fast to be shown)\n", missed)
	}
	for i := range records {
		if !o.json {
			recordLine(b, &records[i])
		} else if err := e.Encode(&records[i]); err != nil {
			return err
		}
	}
	if err := b.Flush(); err != nil {
		return err
	}
	return o.c.Flush()
}

func (s *Server) level(w http.ResponseWriter, _ *http.Request) {
	if s.o.Level == nil {
		refuse(w, http.StatusNotImplemented, "the level of this proxy's log cannot be changed here")
		return
	}
	fmt.Fprintln(w, strings.ToLower(s.o.Level.Level().String()))
}

func (s *Server) setLevel(w http.ResponseWriter, r *http.Request) {
	if s.o.Level == nil {
		s.level(w, r)
		return
	}
	text := r.URL.Query().Get("level")
	var level slog.Level
	switch strings.ToLower(text) {
	case "debug", "info", "warn", "error":
		if err := level.UnmarshalText([]byte(text)); err != nil {
			refuse(w, http.StatusBadRequest, "%v", err)
			return
		}
	default:
		refuse(w, http.StatusBadRequest, "level=%q is unknown; write debug, info, warn or error", text)
		return
	}
	s.o.Level.Set(level)
	s.level(w, r)
}

func (s *Server) drain(w http.ResponseWriter, _ *http.Request) {
	if s.o.Drain == nil {
		refuse(w, http.StatusNotImplemented, "this proxy cannot be drained here")
		return
	}
	s.o.Drain()
	w.WriteHeader(http.StatusAccepted)
	io.WriteString(w, "draining\n")
}

// buildInfo says which program this is.
type buildInfo struct {
	Version  string    `json:"version"`
	Go       string    `json:"go"`
	Revision string    `json:"revision,omitempty"`
	Modified bool      `json:"modified,omitempty"`
	Started  time.Time `json:"started"`
}

func (s *Server) build(w http.ResponseWriter, r *http.Request) {
	b := buildInfo{Version: s.o.Version, Go: runtime.Version(), Started: s.start.UTC().Truncate(time.Second)}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, kv := range info.Settings {
			switch kv.Key {
			case "vcs.revision":
				b.Revision = kv.Value
			case "vcs.modified":
				b.Modified = kv.Value == "true"
			}
		}
	}
	show(w, r, b, func(w io.Writer) {
		rows := [][]string{{"version", b.Version}, {"go", b.Go}, {"started", b.Started.Format(time.RFC3339)}}
		if b.Revision != "" {
			rows = append(rows, []string{"revision", b.Revision})
		}
		table(w, nil, rows)
	})
}
