package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"moire.dev/moire/compile"
	"moire.dev/moire/discovery"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/identity"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

const (
	pace    = 20 * time.Millisecond // between changes
	patient = 2 * time.Minute
)

// acks is the Sink: who has which version.
type acks struct {
	mu    sync.Mutex
	has   map[string]snapshot.Version
	heard chan struct{} // holds one signal
}

func (a *acks) Joined(string, netip.Addr) error         { return nil }
func (a *acks) Connected(string)                        {}
func (a *acks) Gone(string, time.Time)                  {}
func (a *acks) Report(string, snapshot.Report)          {}
func (a *acks) Captured(string, []snapshot.Captured)    {}
func (a *acks) Records(string, []record.Record, uint64) {}
func (a *acks) Acked(node string, v snapshot.Version, _ bool, errText string) {
	if errText != "" {
		fmt.Fprintln(os.Stderr, node, errText)
	}
	a.mu.Lock()
	a.has[node] = v
	a.mu.Unlock()
	select {
	case a.heard <- struct{}{}:
	default:
	}
}

// await returns when every node has the version that it should.
func (a *acks) await(ctx context.Context, want map[string]snapshot.Version) error {
	for {
		a.mu.Lock()
		missing := 0
		for node, v := range want {
			if a.has[node] != v {
				missing++
			}
		}
		a.mu.Unlock()
		if missing == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d nodes did not get their snapshot: %w", missing, ctx.Err())
		case <-a.heard:
		}
	}
}

// plane is the control plane that is measured.
type plane struct {
	world    *world
	full     bool
	compiler *compile.Compiler
	server   *discovery.Server
	acks     *acks
	last     map[string]*snapshot.Snapshot
}

func serve(ctx context.Context, s size, full bool, changes int, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	ca, err := identity.NewCA(identity.Config{Dir: dir + "/identity"})
	if err != nil {
		return err
	}
	token, err := ca.NewToken(identity.TokenSpec{})
	if err != nil {
		return err
	}
	p := &plane{world: newWorld(s), full: full, compiler: compile.NewCompiler(), acks: &acks{has: map[string]snapshot.Version{}, heard: make(chan struct{}, 1)}}
	if p.server, err = discovery.NewServer(discovery.ServerConfig{Listen: "127.0.0.1:0", CA: ca, Sink: p.acks, Whole: full, Log: slog.New(slog.DiscardHandler)}); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.server.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	b, err := json.Marshal(meeting{Addr: p.server.Addr(), Token: token, CAHash: ca.CAHash()})
	if err != nil {
		return err
	}
	if err := os.WriteFile(meetingFile(dir)+".new", b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(meetingFile(dir)+".new", meetingFile(dir)); err != nil {
		return err
	}
	r, err := p.measure(ctx, changes)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// push compiles, publishes and returns what has to arrive, and how many problems
// there are.
func (p *plane) push() (want map[string]snapshot.Version, problems int) {
	if p.full {
		p.compiler = compile.NewCompiler()
	}
	snaps, bad := p.compiler.Compile(p.world.Input)
	want = map[string]snapshot.Version{}
	for node, s := range snaps {
		if !p.full && p.last[node] == s {
			continue
		}
		p.server.Publish(node, s)
		want[node] = s.Version()
	}
	p.last = snaps
	return want, len(bad)
}

func (p *plane) measure(ctx context.Context, changes int) (r figures, err error) {
	limited, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	want, problems := p.push()
	if problems > 0 {
		return r, fmt.Errorf("the fleet has %d problems", problems)
	}
	if err := p.acks.await(limited, want); err != nil {
		return r, err
	}
	for _, s := range p.last {
		r.First += kib(snapshot.Diff(nil, s)) / float64(len(p.last))
	}
	var times []float64
	var sent float64
	before := cpu()
	for i := range changes {
		was := p.last
		p.world.change(i)
		began := time.Now()
		want, _ := p.push()
		if len(want) == 0 {
			return r, fmt.Errorf("change %d changes nothing", i)
		}
		limited, cancel := context.WithTimeout(ctx, patient)
		err := p.acks.await(limited, want)
		cancel()
		if err != nil {
			return r, err
		}
		times = append(times, milliseconds(time.Since(began)))
		paused := cpu()
		for node := range want {
			base := was[node]
			if p.full {
				base = nil
			}
			sent += kib(snapshot.Diff(base, p.last[node]))
		}
		before += cpu() - paused // counting is not the server's work
		time.Sleep(pace)
	}
	r.CPU = milliseconds(cpu()-before) / float64(changes)
	r.Bytes = sent / float64(changes)
	r.P50, r.P99 = percentiles(times)
	r.MiB, err = residentOf("self")
	return r, err
}

// kib is what a delta has on the wire.
func kib(d snapshot.Delta) (n float64) {
	_ = wire.FromDelta(&d, func(m *wire.Delta) error { // cannot fail: it was sent
		n += float64(proto.Size(m)) / 1024
		return nil
	})
	return n
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentOf is the resident memory of a process ("self": this one) in MiB.
func residentOf(process string) (float64, error) {
	b, err := os.ReadFile("/proc/" + process + "/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc: cannot read %q", b)
	}
	pages, err := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()) / (1 << 20), err
}
