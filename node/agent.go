package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"moire.dev/moire/flow"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/ipam"
	"moire.dev/moire/scrape"
	"moire.dev/moire/snapshot"
)

// How many records a node keeps: waiting for the control plane, and for its
// own socket.
const (
	waitingRecords, waitingBytes = 50_000, 32 << 20
	keptRecords, keptBytes       = 20_000, 16 << 20
)

// Agent is one moire-node.
type Agent struct {
	cfg Config
	log *slog.Logger
}

// New checks the Config and fills its defaults. It starts nothing.
func New(cfg Config) (*Agent, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	return &Agent{cfg: cfg, log: cfg.Log.With("node", cfg.Name)}, nil
}

// Run is the agent: it returns nil when ctx is done and everything has
// stopped. The kernel side goes on without it.
func (a *Agent) Run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("moire-node changes the kernel and needs root; run it with sudo")
	}
	if err := os.MkdirAll(a.cfg.Dir, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(a.cfg.RunDir, "netns"), 0o755); err != nil {
		return err
	}
	memory, err := ipam.OpenPool(filepath.Join(a.cfg.Dir, "pool"))
	if err != nil {
		return err
	}
	defer memory.Close()
	kernel, err := openKernel(a.cfg, a.log)
	if err != nil {
		return err
	}
	defer kernel.close()
	if kernel.presence, err = openPresence(a.cfg, kernel.MTU, a.log); err != nil {
		return err
	}
	defer kernel.presence.close()
	attachments, err := openDisk(a.cfg.Dir)
	if err != nil {
		return err
	}
	return a.runWith(ctx, memory, kernel, attachments)
}

func (a *Agent) runWith(ctx context.Context, memory *ipam.Pool, k *kernel, attachments *disk) error {
	up := &link{cfg: a.cfg, log: a.log}
	var collector *flow.Collector
	var shipped atomic.Uint64
	lost := func() uint64 { return collector.Lost() + k.lost() }
	collector = flow.NewCollector(waitingRecords, waitingBytes, func(rs []record.Record, _ uint64) error {
		err := up.ship(rs, lost())
		if err == nil {
			shipped.Add(uint64(len(rs)))
		}
		return err
	})
	watcher := &processes{}
	told := newMachines(a.log, k.MTU)
	l := newLoop(a.cfg, a.log)
	archive := flow.NewArchive(keptRecords, keptBytes)
	take := func(rs []record.Record) {
		archive.Add(a.cfg.Name, rs, 0)
		for i := range rs {
			collector.Add(rs[i])
		}
	}
	proxying, err := newProxying(a.cfg, k.dp, l.rouse, l.stir, func(rs []record.Record) { take(l.known(rs)) }, a.log)
	if err != nil {
		return err
	}
	k.proxying, l.lacks, l.ails = proxying, proxying.lacks, proxying.ails
	who, err := openIdentities(a.cfg, up, l.stir, a.log)
	if err != nil {
		return err
	}
	l.identities, proxying.svids = who, who.certificates
	names := newNames(a.cfg, k.presence, l.stir, k.dp.Alive, a.log)
	k.learned, l.resolve = names.learned, names.learned.resolve
	checked := newChecks(k.presence, l.rouse, a.log)
	l.health = checked.prober.Health
	l.pool, l.wiring, l.appliers, l.up, l.disk = memory, k, appliers{k.presence, readying{proxying}, k, serving{proxying}, told, names, checked}, up, attachments
	l.snapshots, l.watcher, l.lost = newSnapshotFile(a.cfg.Dir, a.cfg.Name), watcher, lost
	up.handler, up.ready = l, l.started
	up.last = func() *snapshot.Snapshot { return l.view.Load().wanted }

	s := &server{loop: l, archive: archive, waiting: collector.Waiting, joining: up.trouble, proxies: proxyDoors{proxying}, log: a.log}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer watcher.wait()
		return l.run(ctx)
	})
	g.Go(func() error { return up.run(ctx) })
	g.Go(func() error { return collector.Run(ctx) })
	g.Go(func() error {
		return k.run(ctx, func(r record.Record) { take([]record.Record{r}) }, up.captured)
	})
	g.Go(func() error { return proxying.run(ctx) })
	g.Go(func() error { return who.run(ctx) })
	g.Go(func() error { return told.run(ctx) })
	g.Go(func() error { return names.run(ctx) })
	g.Go(func() error { return checked.run(ctx) })
	g.Go(func() error { return a.serve(ctx, s) })
	if a.cfg.Metrics != "" {
		m := &metrics{is: newDescriptions(), server: s, kernel: k.dp, shipped: &shipped, names: names.server.Stats, answered: told.server.Answered, health: l.health}
		g.Go(func() error { return scrape.Serve(ctx, a.cfg.Metrics, m, a.log) })
	}
	a.log.Info("running", "address", a.cfg.Address, "socket", a.cfg.socket(), "version", a.cfg.Version)
	err = g.Wait()
	a.log.Info("stopped; the kernel side goes on", "error", err)
	return err
}

// serve opens the socket once the loop has taken up what was there.
func (a *Agent) serve(ctx context.Context, s *server) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.loop.started:
	}
	socket, err := listen(a.cfg.socket())
	if err != nil {
		return fmt.Errorf("make the socket of the agent: %w", err)
	}
	defer os.Remove(a.cfg.socket())
	return s.run(ctx, socket)
}
