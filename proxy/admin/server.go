package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Options of a Server. Path, Proxy and Telemetry are needed.
type Options struct {
	Path      string // of the unix socket
	Proxy     Proxy
	Telemetry Telemetry
	// Drain is asked for by POST /drain; it must return at once. Nil: it cannot be
	// asked for here.
	Drain func()
	// Level of the log; nil: it cannot be changed here.
	Level   *slog.LevelVar
	Version string
	// Profile shows Go's profiles under /debug/pprof/.
	Profile bool
	Log     *slog.Logger // default slog.Default()
}

// Server is the door.
type Server struct {
	o     Options
	start time.Time
	mux   *http.ServeMux
}

// New makes a Server. It opens nothing: see Run.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s := &Server{o: o, start: time.Now(), mux: http.NewServeMux()}
	for _, d := range s.doors() {
		s.mux.HandleFunc(d.pattern, d.serve)
	}
	s.mux.HandleFunc("/", s.nothing)
	if o.Profile {
		s.mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		s.mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		s.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		s.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		s.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return s
}

// patience is how long one answer, or one part of an answer that goes on, may
// take to be written.
const patience = 30 * time.Second

// Run serves until ctx is done. A socket that is there already is replaced: that
// is how a proxy takes over from another.
func (s *Server) Run(ctx context.Context) error {
	l, err := listen(s.o.Path)
	if err != nil {
		return fmt.Errorf("admin: listen on %s: %w", s.o.Path, err)
	}
	defer forget(s.o.Path, l.socket)
	h := &http.Server{
		Handler: s, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		h.Close()
	})
	err = h.Serve(l.Listener)
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		wg.Wait()
		return nil
	}
	return fmt.Errorf("admin: serve on %s: %w", s.o.Path, err)
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A write that hangs must not hang for ever; what is not a real connection
	// has no deadlines.
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience))
	s.mux.ServeHTTP(w, r)
}

type listening struct {
	net.Listener
	socket os.FileInfo
}

// listen makes the socket in a directory of its own, so that nobody can open it
// before its mode is 0600, and puts it in place at once.
func listen(path string) (listening, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".admin-")
	if err != nil {
		return listening{}, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	l, err := net.Listen("unix", made)
	if err != nil {
		return listening{}, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	info, err := place(made, path)
	if err != nil {
		l.Close()
		return listening{}, err
	}
	return listening{l, info}, nil
}

func place(made, path string) (os.FileInfo, error) {
	if there, err := os.Lstat(path); err == nil && there.Mode()&os.ModeSocket == 0 {
		return nil, errors.New("there is a file that is no socket; move it away or choose another path")
	}
	if err := os.Chmod(made, 0o600); err != nil {
		return nil, err
	}
	info, err := os.Lstat(made)
	if err != nil {
		return nil, err
	}
	return info, os.Rename(made, path)
}

// forget removes the socket, if it is still ours.
func forget(path string, ours os.FileInfo) {
	if there, err := os.Lstat(path); err == nil && os.SameFile(there, ours) {
		os.Remove(path)
	}
}
