package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"moire.dev/moire/proxy"
	"moire.dev/moire/proxy/admin"
	"moire.dev/moire/proxy/config"
	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot/l7"
)

// setup is what the command line says.
type setup struct {
	config, agent, admin, handover, level, ring string
	workers                                     int
	watch, profile                              bool
}

// defaultDrain is how long a drain may take when the configuration does not say.
const defaultDrain = 30 * time.Second

func (s *setup) run(ctx context.Context) error {
	switch {
	case s.config == "" && s.agent == "":
		return fmt.Errorf("--config or --agent is required; %w", errUsage)
	case s.config != "" && s.agent != "":
		return fmt.Errorf("--config and --agent exclude each other; %w", errUsage)
	case s.agent != "" && s.handover != "":
		return fmt.Errorf("--handover is not for a proxy with an agent, who hands over himself; %w", errUsage)
	case s.workers < 0 || s.workers > 1024:
		return fmt.Errorf("--workers %d is not between 0 and 1024; %w", s.workers, errUsage)
	}
	var level slog.LevelVar
	if err := level.UnmarshalText([]byte(s.level)); err != nil {
		return fmt.Errorf("--log-level %q is not debug, info, warn or error; %w", s.level, errUsage)
	}
	if !slices.Contains([]string{"", "auto", "on", "off"}, s.ring) {
		return fmt.Errorf("--io-uring %q is not auto, on or off; %w", s.ring, errUsage)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: &level}))
	var cfg *l7.Config
	var err error
	if s.config != "" {
		if cfg, err = config.Load(s.config); err != nil {
			return fmt.Errorf("%w\n%w", err, errUsage)
		}
		s.workers = cmp.Or(s.workers, cfg.Workers)
	}
	s.workers = cmp.Or(s.workers, runtime.GOMAXPROCS(0))
	// One more than workers: while a worker waits for events the runtime would
	// else take its processor away and look every 20 µs whether it can again,
	// which at a few thousand requests a second costs as much as they do.
	runtime.GOMAXPROCS(s.workers + 1)
	o := proxy.Options{Log: log, Workers: s.workers, Version: version, Ring: s.ring}
	serves := func() error { return nil }
	if s.handover != "" {
		if o.Sockets, serves, err = proxy.TakeOver(s.handover); err != nil {
			return err
		}
	}
	p, err := proxy.New(o)
	if err != nil {
		return err
	}
	if cfg != nil {
		if err := p.Apply(cfg); err != nil {
			return err
		}
		debug.FreeOSMemory() // what reading the file took is more than all that stays
	}
	return s.serve(ctx, p, log, &level, serves)
}

// serve runs p and all beside it, until a signal or a successor ends it.
func (s *setup) serve(ctx context.Context, p *proxy.Proxy, log *slog.Logger, level *slog.LevelVar, serves func() error) error {
	running, stop := context.WithCancel(context.Background())
	defer stop()
	errs := make(chan error, 4)
	go func() { errs <- p.Run(running) }()
	end := make(chan string, 1)
	tell := func(why string) {
		select {
		case end <- why:
		default: // it was told already
		}
	}
	if s.handover != "" {
		offer, err := p.Offer(s.handover)
		if err != nil {
			return err
		}
		go func() {
			if err := offer.Run(running); err == nil {
				tell("a successor serves")
			} else if running.Err() == nil {
				errs <- err
			}
		}()
	}
	if err := serves(); err != nil {
		log.Warn("the process before this one was not told to drain", "error", err)
	}
	if s.admin != "" {
		door := admin.New(admin.Options{Path: s.admin, Proxy: p, Telemetry: p.Telemetry(), Version: version, Level: level, Profile: s.profile, Log: log, Drain: func() { tell("asked at the administrator's door") }})
		go func() {
			if err := door.Run(running); err != nil && running.Err() == nil {
				errs <- err
			}
		}()
	}
	if s.agent != "" {
		d := door.NewProxy(door.ProxyOptions{Path: s.agent, Workers: s.workers, Version: version, Log: log, Served: &guest{p, tell}})
		go func() {
			if err := d.Run(running); err != nil {
				errs <- err
			}
		}()
	} else {
		go s.reload(running, p, log)
	}
	log.Info("serving", "config", cmp.Or(s.config, s.agent), "pid", os.Getpid())
	var why string
	select {
	case err := <-errs:
		return err
	case why = <-end:
	case <-ctx.Done():
		why = "signal"
	}
	most := defaultDrain
	if cfg := p.Config(); cfg != nil {
		most = cfg.Drain.Or(defaultDrain)
	}
	log.Info("draining", "why", why, "most", most)
	drain, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	p.Drain(drain)
	stop()
	return <-errs
}

// reload applies the file again at SIGHUP and, when it is watched, when it changes.
func (s *setup) reload(ctx context.Context, p *proxy.Proxy, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := stamp(s.config)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		case <-tick.C:
			now := stamp(s.config)
			if !s.watch || now == last {
				continue
			}
			last = now
		}
		var cfg *l7.Config
		cfg, err := config.Load(s.config)
		if err == nil {
			err = p.Apply(cfg)
		}
		if err != nil {
			log.Error("the configuration cannot be used; the old one stays", "file", s.config, "error", err)
			continue
		}
		log.Info("configuration applied", "file", s.config)
	}
}

// stamp tells one state of a file from another.
func stamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}

// guest is the proxy as its agent has it.
type guest struct {
	*proxy.Proxy
	tell func(why string)
}

// Drain implements door.Served.
func (g *guest) Drain() { g.tell("another process serves") }
