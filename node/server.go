package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/node/local"
)

// server answers programs on this node at the unix socket.
type server struct {
	loop    *loop
	archive *flow.Archive
	waiting func() int // records that are not shipped yet
	joining func() string
	proxies proxyDoors
	log     *slog.Logger
}

// listen makes the socket; a stale one of an agent that was killed goes. The
// pool's lock has shown that no other agent of this node runs.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// Under another name until it serves: who waits for the socket to appear
	// must not be too early.
	tmp := path + ".new"
	os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return rootOnly{l}, nil
}

// rootOnly lets nobody but root in, whatever the mode of the socket says.
type rootOnly struct{ *net.UnixListener }

// Accept returns the next connection of root.
func (r rootOnly) Accept() (net.Conn, error) {
	for {
		c, err := r.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && uid == 0 {
			return c, nil
		}
		c.Close()
	}
}

func peerUID(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctrl := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = cred.Uid
		}
	})
	return uid, errors.Join(ctrl, err)
}

// run serves until ctx is done.
func (s *server) run(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+local.AttachPath, s.attach)
	mux.HandleFunc("POST "+local.DetachPath, s.detach)
	mux.HandleFunc("POST "+local.ConsentPath, s.consent)
	mux.HandleFunc("GET "+local.StatusPath, s.status)
	mux.HandleFunc("GET "+local.AttachmentsPath, s.attachments)
	mux.HandleFunc("GET "+local.DumpPath, s.dump)
	mux.HandleFunc("GET "+local.FlowsPath, s.flows)
	mux.HandleFunc("GET "+local.ProxiesPath, s.proxies.list)
	mux.HandleFunc("GET "+local.ProxyPath, s.proxies.ask)
	mux.HandleFunc("POST "+local.ReplacePath, s.proxies.replace)
	h := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if h.Shutdown(grace) != nil {
			h.Close()
		}
	})
	err := h.Serve(l)
	wg.Wait()
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}

// ask sends a request to the loop and waits for the answer.
func (s *server) ask(ctx context.Context, r *request) (local.Attached, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // tells the loop that nobody waits any more
	r.ctx, r.answer = ctx, make(chan answer, 1)
	select {
	case s.loop.requests <- r:
	case <-ctx.Done():
		return local.Attached{}, errStopping
	}
	select {
	case a := <-r.answer:
		return a.attached, a.err
	case <-ctx.Done():
		return local.Attached{}, errStopping
	}
}

func (s *server) attach(w http.ResponseWriter, q *http.Request) {
	var in local.Attach
	if !read(w, q, &in) {
		return
	}
	out, err := s.ask(q.Context(), &request{attach: &in})
	answerWith(w, out, err)
}

func (s *server) detach(w http.ResponseWriter, q *http.Request) {
	var in local.Detach
	if !read(w, q, &in) {
		return
	}
	_, err := s.ask(q.Context(), &request{detach: &in})
	answerWith(w, struct{}{}, err)
}

func (s *server) consent(w http.ResponseWriter, q *http.Request) {
	var in local.Consent
	if !read(w, q, &in) {
		return
	}
	_, err := s.ask(q.Context(), &request{consent: &in})
	answerWith(w, struct{}{}, err)
}

func (s *server) status(w http.ResponseWriter, _ *http.Request) {
	st := s.loop.view.Load().status
	st.RecordsWaiting, st.RecordsLost = s.waiting(), s.loop.lost()
	if st.Error == "" {
		st.Error = s.joining()
	}
	answerWith(w, st, nil)
}

func (s *server) attachments(w http.ResponseWriter, _ *http.Request) {
	answerWith(w, s.loop.view.Load().attachments, nil)
}

func (s *server) dump(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	b := bufio.NewWriter(w)
	defer b.Flush()
	v := s.loop.view.Load()
	writeJSON(b, v.status)
	for _, a := range v.attachments {
		io.WriteString(b, "attachment ")
		writeJSON(b, a)
	}
	if v.snapshot != nil {
		v.snapshot.Dump(b)
	}
	if err := s.loop.appliers.dump(b); err != nil {
		fmt.Fprintf(b, "error: %v\n", err)
	}
}

func (s *server) flows(w http.ResponseWriter, q *http.Request) {
	f, err := flow.ParseFilter(q.URL.Query(), time.Now())
	if err != nil {
		problem(w, http.StatusBadRequest, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	if q.URL.Query().Get("follow") != "true" {
		for _, r := range s.archive.Query(f) {
			writeJSON(w, r)
		}
		return
	}
	flush := http.NewResponseController(w)
	flush.Flush()
	s.archive.Follow(q.Context(), f, func(r record.Record) {
		writeJSON(w, r)
		flush.Flush()
	})
}

// read decodes the body strictly.
func read(w http.ResponseWriter, q *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, q.Body, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		problem(w, http.StatusBadRequest, fmt.Errorf("the request cannot be read: %w", err))
		return false
	}
	return true
}

func answerWith(w http.ResponseWriter, out any, err error) {
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		writeJSON(w, out)
	case errors.Is(err, errUnknown), errors.Is(err, errNoProxy):
		problem(w, http.StatusNotFound, err)
	case isInvalid(err):
		problem(w, http.StatusBadRequest, err)
	case errors.Is(err, errStopping):
		problem(w, http.StatusServiceUnavailable, err)
	default:
		problem(w, http.StatusConflict, err)
	}
}

func isInvalid(err error) bool {
	_, is := errors.AsType[invalid](err)
	return is
}

func problem(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	writeJSON(w, local.Problem{Error: err.Error()})
}

// writeJSON writes one line. Who reads has gone away when it fails, and then
// the request's context ends too.
func writeJSON(w io.Writer, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte(fmt.Sprintf(`{"error":%q}`, err))
	}
	w.Write(append(b, '\n'))
}
