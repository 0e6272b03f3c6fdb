package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
)

// DefaultListen is where the API server listens if Config.Listen is empty.
const DefaultListen = "127.0.0.1:7443"

// Config says where the store keeps its state and where it listens.
type Config struct {
	// Dir holds keys, certificates, the embedded etcd and the admin kubeconfig.
	// It is created with mode 0700. Only one store can use it at a time.
	Dir string
	// Listen is host:port of the API server. Port 0 picks a free port.
	// Default: DefaultListen.
	Listen string
	// Names are DNS names and IP addresses for the serving certificate, besides
	// the listening address, localhost, the loopback addresses and the host name.
	Names []string
	// EtcdServers are the URLs of an external etcd cluster. Default: an etcd in
	// this process, reachable only through a socket in Dir.
	EtcdServers []string
	// EtcdCA, EtcdCert and EtcdKey are PEM files for the external etcd.
	EtcdCA, EtcdCert, EtcdKey string
	// QuotaBytes limits the embedded etcd's database. Default: 4 GiB.
	QuotaBytes int64
	// KubeconfigPath is where the admin kubeconfig is written, mode 0600.
	// Default: Dir/kubeconfig.
	KubeconfigPath string
	// Virtual resources are served in the group moire.dev/v1alpha1.
	Virtual []Virtual
	// AwaitWorld lets who reads workloads and nodes wait until SetWorld was
	// called: who knows nothing yet must not say that there is nothing.
	AwaitWorld bool
	// Log receives what the store, the API server and etcd have to say.
	// Default: slog.Default().
	Log *slog.Logger
}

// Virtual is a resource of moire.dev/v1alpha1 that is computed, not stored. GET
// requests for it reach Handler after authentication and authorization of that
// resource name, with the full request path. A request with ?follow=true or
// ?watch=true may stream for as long as it likes.
type Virtual struct {
	// Resource is the plural name, such as "flows".
	Resource string
	// Namespaced: reached at .../namespaces/<project>/<resource>, and for all
	// projects at .../<resource>. Otherwise only at .../<resource>.
	Namespaced bool
	// Streams: every request may stream for as long as it likes, and POST (the
	// verb create) reaches Handler too.
	Streams bool
	Handler http.Handler
}

// World is what the nodes reported. Implementations are safe for concurrent
// use and return objects that nobody changes afterwards.
type World interface {
	// Objects returns the objects of a resource ("workloads" or "nodes") in a
	// namespace ("" is all). One whose name is declared too contributes only its
	// .status; one that is not declared is shown as it is.
	Objects(resource, namespace string) []*unstructured.Unstructured
	// Changed returns a channel that is closed at the next change.
	Changed() <-chan struct{}
}

// Store is the API server and its database.
type Store struct {
	cfg     Config
	log     *slog.Logger
	ready   chan struct{}
	started atomic.Bool
	hooked  atomic.Bool // the API server has done all that it does at its start
	client  atomic.Pointer[rest.Config]
	rows    *Rows
	world   *overlay
	peers   atomic.Pointer[http.Client]
}

// New checks cfg and returns a Store that does nothing yet.
func New(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("store: Dir is empty; say where the control plane keeps its state (--dir)")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("store: Dir %q: %w", cfg.Dir, err)
	}
	cfg.Dir = dir
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	if _, _, err := net.SplitHostPort(cfg.Listen); err != nil {
		return nil, fmt.Errorf("store: Listen %q is not host:port: %w", cfg.Listen, err)
	}
	if (cfg.EtcdCert == "") != (cfg.EtcdKey == "") {
		return nil, errors.New("store: EtcdCert and EtcdKey need each other; set both or none")
	}
	if cfg.QuotaBytes == 0 {
		cfg.QuotaBytes = 4 << 30
	}
	if cfg.KubeconfigPath == "" {
		cfg.KubeconfigPath = filepath.Join(dir, "kubeconfig")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	for _, v := range cfg.Virtual {
		if v.Resource == "" || v.Handler == nil {
			return nil, fmt.Errorf("store: virtual resource %q needs a name and a handler", v.Resource)
		}
	}
	world, err := newOverlay(cfg.Virtual)
	if err != nil {
		return nil, err
	}
	if !cfg.AwaitWorld {
		world.know()
	}
	return &Store{
		cfg:   cfg,
		log:   cfg.Log,
		ready: make(chan struct{}),
		rows:  newRows(),
		world: world,
	}, nil
}

// Ready is closed once kubectl works: the server serves, and CRDs, roles and
// admission policies are installed.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// RESTConfig returns a client configuration with all rights that sees intent
// only, without the world. It is nil before Ready is closed; the caller may
// change what it gets.
func (s *Store) RESTConfig() *rest.Config {
	c := s.client.Load()
	if c == nil {
		return nil
	}
	return rest.CopyConfig(c)
}

// Peer sends a request, as administrator, to the API server of another process
// on the same database. It fails before Ready is closed.
func (s *Store) Peer(r *http.Request) (*http.Response, error) {
	c := s.peers.Load()
	if c == nil {
		return nil, errors.New("store: the API server is starting")
	}
	return c.Do(r)
}

// Rows returns the small durable values beside the API objects. Calls wait
// until the database is up or their context ends.
func (s *Store) Rows() *Rows { return s.rows }

// SetWorld says what the nodes reported; nil means nothing. It may be called
// at any time and takes effect at once, also for watches that are open.
func (s *Store) SetWorld(w World) { s.world.setWorld(w) }

// Run starts the database and the server, and returns when all has stopped:
// nil after ctx ended, otherwise the reason. A Store runs once.
func (s *Store) Run(ctx context.Context) error {
	if !s.started.CompareAndSwap(false, true) {
		return errors.New("store: Run was called twice; make a new Store")
	}
	unlock, err := lockDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	logs := redirectLogs(s.log)
	db, err := startDatabase(s.cfg, logs)
	if err != nil {
		return err
	}
	defer db.close()
	forget := context.AfterFunc(ctx, logs.stopping)
	defer forget()
	if err := s.rows.open(db); err != nil {
		return err
	}
	defer s.rows.close()
	if len(s.cfg.EtcdServers) > 0 {
		if err := s.shareKeys(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
	files, err := s.prepareFiles()
	if err != nil {
		return err
	}
	return s.serve(ctx, files, db, logs)
}
