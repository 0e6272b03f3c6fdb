package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"moire.dev/moire/discovery"
	"moire.dev/moire/flow"
	"moire.dev/moire/flow/ipfix"
	"moire.dev/moire/identity"
	"moire.dev/moire/ipam"
	"moire.dev/moire/scrape"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/store"
)

// startTimeout bounds how long a start that is no longer wanted may take.
const startTimeout = 30 * time.Second

// Control is moired. Make it with New, start it with Run.
type Control struct {
	cfg     Config
	log     *slog.Logger
	ready   chan struct{}
	started atomic.Bool
	// life ends when Run returns; handlers that stream listen to it.
	life context.Context
	end  context.CancelFunc

	store     *store.Store
	archive   *flow.Archive
	loop      *loop
	publisher *publisher
	discovery atomic.Pointer[discovery.Server]
	clients   atomic.Pointer[clients]
	leading   atomic.Bool
	ipfix     *ipfix.Exporter // nil: nobody collects
	received  atomic.Uint64   // records

	// Made at the start of Run, before anybody reads them.
	ca     *identity.CA
	world  *world
	keeper *keeper
}

// New checks cfg and returns a Control that does nothing yet.
func New(cfg Config) (*Control, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Control{cfg: cfg, log: cfg.Log, ready: make(chan struct{}), archive: flow.NewArchive(0, 0)}
	if cfg.IPFIX != "" {
		if c.ipfix, err = ipfix.New(ipfix.Config{Collector: cfg.IPFIX, Log: cfg.Log}); err != nil {
			return nil, fmt.Errorf("control: %w", err)
		}
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.publisher = newPublisher(c.publish)
	c.loop = newLoop(cfg.Log, time.Now, c.publisher.publish)
	judge := rights{func() *rest.Config { return c.store.RESTConfig() }}
	c.store, err = store.New(store.Config{
		Dir: cfg.Dir, Listen: cfg.APIListen, Names: cfg.names(), KubeconfigPath: cfg.Kubeconfig,
		EtcdServers: cfg.EtcdServers, EtcdCA: cfg.EtcdCA, EtcdCert: cfg.EtcdCert, EtcdKey: cfg.EtcdKey,
		Log: cfg.Log, AwaitWorld: true,
		Virtual: []store.Virtual{
			{Resource: "flows", Namespaced: true, Handler: flowsHandler{archive: c.archive, now: time.Now, life: c.life}},
			{Resource: "explain", Namespaced: true, Handler: explainHandler{loop: c.loop, rights: judge, archive: c.archive}},
			{Resource: "captures", Namespaced: true, Streams: true, Handler: capturesHandler{loop: c.loop, publisher: c.publisher,
				rights: judge, state: c.nodeStates, peers: c.peers, now: time.Now, life: c.life}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return c, nil
}

// Ready is closed when the API works, nodes can join and the first snapshots
// are published or held for nodes that are expected back.
func (c *Control) Ready() <-chan struct{} { return c.ready }

// Leading reports whether this process allocates.
func (c *Control) Leading() bool { return c.leading.Load() }

// Discovery is where nodes connect; it waits until that is known.
func (c *Control) Discovery(ctx context.Context) (string, error) {
	select {
	case <-c.ready:
		return c.discovery.Load().Addr(), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Kubeconfig is where the administrator's kubeconfig is.
func (c *Control) Kubeconfig() string { return c.cfg.Kubeconfig }

func (c *Control) publish(node string, s *snapshot.Snapshot) {
	if d := c.discovery.Load(); d != nil {
		d.Publish(node, s)
	}
}

func (c *Control) nodeStates() []discovery.NodeState {
	if d := c.discovery.Load(); d != nil {
		return d.Nodes()
	}
	return nil
}

// Run starts everything and returns when all has stopped: nil after ctx ended,
// otherwise the reason. A Control runs once.
func (c *Control) Run(ctx context.Context) error {
	if !c.started.CompareAndSwap(false, true) {
		return errors.New("control: Run was called twice; make a new Control")
	}
	defer c.end()
	if err := c.prepare(ctx); err != nil {
		return err
	}
	// The store stops last: the others write their last words into it.
	storing, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStore()
	working, stopWork := context.WithCancelCause(ctx)
	defer stopWork(nil)
	stored := make(chan error, 1)
	go func() {
		err := c.store.Run(storing)
		stopWork(err)
		stored <- err
	}()
	err := c.work(working)
	c.end() // streams end, so that the server can
	// The hooks of the API server end the whole process when they are
	// interrupted; let it finish starting before it stops.
	var storeErr error
	select {
	case storeErr = <-stored:
	case <-c.store.Ready():
		stopStore()
		storeErr = <-stored
	case <-time.After(startTimeout):
		stopStore()
		storeErr = <-stored
	}
	if storeErr != nil {
		return fmt.Errorf("control: %w", storeErr)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// prepare makes what must be there before anything starts.
func (c *Control) prepare(ctx context.Context) error {
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{{c.cfg.Dir, 0o700}, {c.cfg.RunDir, 0o755}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return fmt.Errorf("control: %w; choose other directories with --dir and --run-dir, or run as root", err)
		}
	}
	for _, l := range []struct{ flag, listen, what string }{
		{"--api-listen", c.cfg.APIListen, "the API"}, {"--discovery-listen", c.cfg.DiscoveryListen, "discovery"},
	} {
		if err := tryListen(ctx, l.listen); err != nil {
			return fmt.Errorf("control: %s cannot listen on %s: %w; stop what uses it, or choose another address with %s", l.what, l.listen, err, l.flag)
		}
	}
	self, err := instance(c.cfg.Dir)
	if err != nil {
		return err
	}
	if len(c.cfg.EtcdServers) == 0 { // else it is in the database, which is not open yet
		if err = c.openCAs(nil); err != nil {
			return err
		}
	}
	c.world = newWorld(self, time.Now, c.loop.wake)
	c.keeper = newKeeper(c.store.Rows(), self, c.world, c.log, time.Now, c.loop.wake)
	c.loop.world, c.loop.keeper = c.world, c.keeper
	c.loop.resolver = newResolver(c.keeper, c.cfg.NameServers, c.log, time.Now)
	inside, err := c.cfg.fetchInside()
	if err != nil {
		return err
	}
	c.loop.fetcher = newFetcher(c.keeper, newGuard(inside, c.loop.resolver.addresses, nil), c.log, time.Now)
	c.loop.awayAfter = c.cfg.AwayAfter
	return nil
}

// openCAs opens the CA of the nodes and those of the Domains.
func (c *Control) openCAs(rows ipam.Rows) (err error) {
	if c.ca, err = c.cfg.openCA(rows); err != nil {
		return err
	}
	c.loop.authorities.domains, err = identity.NewDomains(identity.DomainsConfig{Vault: c.cfg.vault(rows), External: c.cfg.DomainCAs})
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	return nil
}

func tryListen(ctx context.Context, address string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// work is everything that needs the store. It returns when all has stopped.
func (c *Control) work(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.store.Ready():
	}
	if c.ca == nil {
		if err := c.openCAs(c.store.Rows()); err != nil {
			return err
		}
	}
	cfg := c.store.RESTConfig()
	api, err := newClients(cfg)
	if err != nil {
		return err
	}
	url, err := c.cfg.apiURL(cfg.Host)
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	c.keeper.reachedAt(url)
	if c.loop.intent, err = newIntent(api, c.loop.wake); err != nil {
		return fmt.Errorf("control: watch the intent: %w", err)
	}
	c.clients.Store(&api)
	c.loop.allocator = newAllocator(c.keeper, apiNetworks{api}, api, c.log)
	g, ctx := errgroup.WithContext(ctx)
	server, err := discovery.NewServer(discovery.ServerConfig{Listen: c.cfg.DiscoveryListen, CA: c.ca, Sink: sink{c, ctx}, Log: c.log,
		Issuer:    newCertifier(c.loop.authorities.domains, c.loop.current.Load),
		Keepalive: 2 * time.Second, KeepaliveTimeout: 2 * time.Second})
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	c.discovery.Store(server)

	g.Go(func() error { c.loop.intent.run(ctx); return nil })
	g.Go(func() error { return server.Run(ctx) })
	if c.cfg.Metrics != "" {
		g.Go(func() error { return scrape.Serve(ctx, c.cfg.Metrics, newMetrics(c), c.log) })
	}
	if c.ipfix != nil {
		g.Go(func() error { return c.ipfix.Run(ctx) })
	}
	g.Go(func() error {
		if err := c.whole(ctx); err != nil {
			return err
		}
		return c.running(ctx, g, server)
	})
	err = g.Wait()
	if err == nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return err
}

// whole waits until nothing is missing: every intent object, every row.
func (c *Control) whole(ctx context.Context) error {
	for {
		err := c.keeper.load(ctx)
		if err == nil {
			err = c.loop.authorities.load()
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		c.log.Warn("cannot read the saved state; trying again", "error", err)
		if !sleep(ctx, time.Second) {
			return nil
		}
	}
	for !c.loop.intent.synced() {
		if !sleep(ctx, 20*time.Millisecond) {
			return nil
		}
	}
	return nil
}

// running starts what needs the whole state.
func (c *Control) running(ctx context.Context, g *errgroup.Group, server *discovery.Server) error {
	if ctx.Err() != nil {
		return nil
	}
	g.Go(func() error { c.loop.run(ctx); return nil })
	g.Go(func() error { c.loop.authorities.run(ctx); return nil })
	g.Go(func() error { return c.keeper.run(ctx) })
	g.Go(func() error {
		return lead(ctx, c.store.RESTConfig(), c.world.self, &c.leading, c.log, c.allocate)
	})
	select {
	case <-ctx.Done():
		return nil
	case <-server.Ready():
	}
	for c.loop.current.Load() == nil {
		if !sleep(ctx, 5*time.Millisecond) {
			return nil
		}
	}
	// Not before: until now we know nothing of the nodes.
	c.store.SetWorld(newShown(c.loop, c.nodeStates))
	addr, err := net.ResolveTCPAddr("tcp", server.Addr())
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	write := func() error { return writeJoin(c.ca, c.cfg.RunDir, c.world.self, c.cfg.servers(addr)) }
	if err := write(); err != nil {
		return err
	}
	close(c.ready)
	c.log.Info("ready", "kubeconfig", c.cfg.Kubeconfig, "discovery", server.Addr())
	return keepJoin(ctx, write)
}

// allocate is the work of the process that has the lease.
func (c *Control) allocate(ctx context.Context) {
	if err := c.keeper.loadAllocations(ctx); err != nil && ctx.Err() == nil {
		c.log.Warn("cannot read what is allocated; going on with what is known", "error", err)
	}
	r := &retirer{keeper: c.keeper, networks: c.loop.allocator.networks, facts: c.loop.current.Load, log: c.log, now: time.Now}
	var wg sync.WaitGroup
	wg.Go(func() { c.loop.allocator.run(ctx) })
	wg.Go(func() { r.run(ctx) })
	wg.Go(func() { c.loop.resolver.run(ctx) })
	wg.Go(func() { c.loop.fetcher.run(ctx) })
	wg.Go(func() { c.loop.authorities.tend(ctx, c.loop.current.Load) })
	wg.Wait()
}
