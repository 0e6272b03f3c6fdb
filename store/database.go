package store

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

const (
	// objectPrefix is where the API server keeps its objects.
	objectPrefix = "/moire.dev/registry"
	// databaseTimeout bounds how long a database may take to open; a large
	// write-ahead log is replayed in that time.
	databaseTimeout = 60 * time.Second
	// longestSocket is the longest path that a unix socket can have.
	longestSocket = 107
)

// database is an etcd, ours or somebody else's.
type database struct {
	endpoints                 []string
	caFile, certFile, keyFile string
	log                       *zap.Logger
	embedded                  *embed.Etcd // nil: external
	socketDir                 string      // to be removed, if not in Dir
}

// startDatabase opens the embedded etcd and waits until it serves, or returns
// the external one as it is.
func startDatabase(cfg Config, l logs) (*database, error) {
	if len(cfg.EtcdServers) > 0 {
		return &database{
			endpoints: cfg.EtcdServers,
			caFile:    cfg.EtcdCA, certFile: cfg.EtcdCert, keyFile: cfg.EtcdKey,
			log: l.etcdLogger(),
		}, nil
	}
	db := &database{log: l.etcdLogger()}
	socket, err := db.socketPath(cfg.Dir)
	if err != nil {
		return nil, err
	}
	// A killed process leaves its socket behind; Dir is locked, so it is nobody's.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("store: stale etcd socket: %w", err)
	}
	db.endpoints = []string{"unix://" + socket}
	e, err := embed.StartEtcd(etcdConfig(cfg, socket, db.log))
	if err != nil {
		db.close()
		return nil, fmt.Errorf("store: cannot start etcd in %s: %w", cfg.Dir, err)
	}
	db.embedded = e
	select {
	case <-e.Server.ReadyNotify():
		return db, nil
	case err := <-e.Err():
		db.close()
		return nil, fmt.Errorf("store: etcd in %s failed: %w", cfg.Dir, err)
	case <-time.After(databaseTimeout):
		db.close()
		return nil, fmt.Errorf("store: etcd in %s was not ready after %s; is the disk full or very slow?", cfg.Dir, databaseTimeout)
	}
}

// socketPath returns where etcd listens: in dir if the path is short enough.
func (db *database) socketPath(dir string) (string, error) {
	if p := filepath.Join(dir, "etcd.sock"); len(p) <= longestSocket {
		return p, nil
	}
	tmp, err := os.MkdirTemp("", "moire-etcd-") // mode 0700
	if err != nil {
		return "", fmt.Errorf("store: directory for the etcd socket: %w", err)
	}
	db.socketDir = tmp
	return filepath.Join(tmp, "etcd.sock"), nil
}

func etcdConfig(cfg Config, socket string, log *zap.Logger) *embed.Config {
	c := embed.NewConfig()
	c.Name = "moire"
	c.Dir = filepath.Join(cfg.Dir, "etcd")
	c.ListenPeerUrls = nil // a single member has no peers
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	client := url.URL{Scheme: "unix", Path: socket}
	c.ListenClientUrls = []url.URL{client}
	c.AdvertiseClientUrls = []url.URL{client}
	c.EnableGRPCGateway = false
	c.ElectionMs = 500 // nobody else stands for election
	c.QuotaBackendBytes = cfg.QuotaBytes
	// The API server compacts every five minutes; this catches what it misses.
	c.AutoCompactionMode = "periodic"
	c.AutoCompactionRetention = "30m"
	c.BootstrapDefragThresholdMegabytes = 64
	c.SnapshotCount = 10_000
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	return c
}

// client returns a new client for the database.
func (db *database) client() (*clientv3.Client, error) {
	c := clientv3.Config{
		Endpoints:            db.endpoints,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second, // etcd takes no more than one in 5 s
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               db.log,
		DialOptions:          []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.WaitForReady(true))},
	}
	if db.caFile != "" || db.certFile != "" {
		t := transport.TLSInfo{TrustedCAFile: db.caFile, CertFile: db.certFile, KeyFile: db.keyFile}
		tls, err := t.ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("store: keys for the external etcd: %w", err)
		}
		c.TLS = tls
	}
	client, err := clientv3.New(c)
	if err != nil {
		return nil, fmt.Errorf("store: client for etcd at %v: %w", db.endpoints, err)
	}
	return client, nil
}

// failed reports when an embedded etcd has stopped by itself.
func (db *database) failed() <-chan error {
	if db.embedded == nil {
		return nil
	}
	return db.embedded.Err()
}

func (db *database) close() {
	if db.embedded != nil {
		db.embedded.Close()
	}
	if db.socketDir != "" {
		os.RemoveAll(db.socketDir)
	}
}
