package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"moire.dev/moire/snapshot"
)

// SVID is an X.509-SVID with its key.
type SVID struct {
	ID    string
	Chain [][]byte // DER, leaf first
	Key   []byte   // PKCS #8
}

// Source has what callers may have. All methods may be called at any time.
type Source interface {
	// Identities of who is attached in a network namespace now, sorted; none:
	// nobody is. The namespace is held open meanwhile.
	Identities(Namespace) []string
	// SVID waits until there is one.
	SVID(ctx context.Context, id string) (SVID, error)
	// Token returns a JWT-SVID.
	Token(ctx context.Context, id string, audiences []string) (string, error)
	// Trusts by name, as the node has them.
	Trusts() map[string]snapshot.Trust
	// Changed is closed when any answer may be another.
	Changed() <-chan struct{}
}

// Config of a Server.
type Config struct {
	// Path of the unix socket.
	Path   string
	Source Source
	Log    *slog.Logger // nil: slog.Default()
}

// Server serves the Workload API.
type Server struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	cfg   Config
	log   *slog.Logger
	limit *limit
}

// New checks the configuration; Run starts.
func New(cfg Config) (*Server, error) {
	if cfg.Path == "" || cfg.Source == nil {
		return nil, errors.New("workloadapi: Path and Source must be set")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Server{cfg: cfg, log: cfg.Log, limit: newLimit()}, nil
}

const (
	maxMessage = 64 << 10 // of a request, in bytes
	maxStreams = 32       // of a connection
	// lookEvery is how often a caller who waits is asked about again, in case
	// nobody told of a change.
	lookEvery = 30 * time.Second
	// svidWait bounds how long a new SVID may take.
	svidWait = 10 * time.Second
	stopTime = time.Second
)

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	l, err := listen(s.cfg.Path)
	if err != nil {
		return fmt.Errorf("workloadapi: %w", err)
	}
	defer os.Remove(s.cfg.Path)
	g := grpc.NewServer(
		grpc.Creds(attesting{s.limit, s.log}),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(16<<10),
		grpc.ConnectionTimeout(5*time.Second), grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(streaming(ctx)),
	)
	workload.RegisterSpiffeWorkloadAPIServer(g, s)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("workloadapi: %w", err)
	case <-ctx.Done():
	}
	cut := time.AfterFunc(stopTime, g.Stop)
	g.GracefulStop()
	cut.Stop()
	<-served
	return nil
}

// listen makes the socket, which everybody may connect to.
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
	if err := errors.Join(os.Chmod(tmp, 0o666), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// meant: the standard wants a header that a browser, or a server that was
// tricked, does not send.
func meant(ctx context.Context) error {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get("workload.spiffe.io"); len(v) == 1 && v[0] == "true" {
			return nil
		}
	}
	return status.Error(codes.InvalidArgument, "the metadata workload.spiffe.io: true is missing")
}

func unary(ctx context.Context, in any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := meant(ctx); err != nil {
		return nil, err
	}
	return handle(ctx, in)
}

// streaming ends streams when the server stops.
func streaming(running context.Context) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		if err := meant(stream.Context()); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		stop := context.AfterFunc(running, cancel)
		defer stop()
		err := handle(srv, ending{stream, ctx})
		if running.Err() != nil {
			return status.Error(codes.Unavailable, "the node agent stops; it comes back")
		}
		return err
	}
}

// ending is a stream with a context that ends earlier.
type ending struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (e ending) Context() context.Context { return e.ctx }

// who are the identities of a caller; none is an error.
func (s *Server) who(ctx context.Context) ([]string, error) {
	c, ok := callerOf(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "the connection is not known")
	}
	ids := s.cfg.Source.Identities(c.namespace)
	if len(ids) == 0 {
		return nil, status.Error(codes.PermissionDenied, "no identity issued: the caller is not in the network namespace of a Workload that is attached here")
	}
	return ids, nil
}

// watch sends what make returns, and again whenever it is something else.
func watch[M any, P interface {
	*M
	proto.Message
}](s *Server, stream grpc.ServerStreamingServer[M], make func(ctx context.Context, ids []string) (*M, error)) error {
	ctx := stream.Context()
	var last *M
	for {
		changed := s.cfg.Source.Changed()
		ids, err := s.who(ctx)
		if err != nil {
			return err
		}
		next, err := make(ctx, ids)
		if err != nil {
			return err
		}
		if last == nil || !proto.Equal(P(last), P(next)) {
			if err := stream.Send(next); err != nil {
				return err
			}
			last = next
		}
		look := time.NewTimer(lookEvery)
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
		}
		look.Stop()
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}
