package proxies

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"moire.dev/moire/node/keep"
	"moire.dev/moire/node/mesh"
	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// group is one proxy. All but its doors belongs to who has the lock of Proxies.
type group struct {
	name, dir, cgroup, logFile string
	log                        *slog.Logger
	door                       *door.Agent
	keeper                     *keep.Keeper
	ended                      atomic.Bool // run has returned
	heard                      atomic.Bool // it was up since the agent was started

	builder mesh.Builder
	whole   *l7.Config // as it was built
	leftOut []string   // of it, and why
	state   door.State
	number  uint64    // of state; 0: there is none
	sent    time.Time // state
	begun   time.Time
	was     bool // it has served once
	idle    time.Time
	// since which number each interface is in the state.
	since map[snapshot.AttachmentKey]uint64
}

// place is where the files of a proxy are: readable, but never too long for a
// socket.
func (p *Proxies) place(name string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(name, p.o.Node), "/")
	id := strings.ReplaceAll(rest, "/", "+") // which is in no name
	if id == "" {
		id = "node"
	}
	if len(id) > 32 {
		sum := sha256.Sum256([]byte(rest))
		id = "+" + hex.EncodeToString(sum[:8])
	}
	return id
}

func (p *Proxies) newGroup(name string) (*group, error) {
	id := p.place(name)
	g := &group{name: name, dir: filepath.Join(p.o.Dir, id), cgroup: filepath.Join(p.o.Cgroup, id), logFile: filepath.Join(p.o.Logs, id+".log"), log: p.o.Log.With("proxy", name), since: map[snapshot.AttachmentKey]uint64{}, begun: time.Now()}
	if err := errors.Join(os.MkdirAll(g.dir, 0o700), os.MkdirAll(g.cgroup, 0o755)); err != nil {
		return nil, err
	}
	path := filepath.Join(g.dir, "door")
	g.door = door.NewAgent(door.AgentOptions{Path: path, Grace: grace, Log: g.log,
		Changed: func(s door.Status) {
			if up(s) {
				g.heard.Store(true)
			}
			p.o.Changed(Group{Name: name, Cgroup: g.cgroup, Workers: p.o.Workers, Up: up(s), Sure: g.sure()})
		}})
	g.keeper = keep.New(keep.Options{
		Name: name, Path: p.o.Program, Args: []string{"--agent", path, "--admin", g.admin(), "--workers", fmt.Sprint(p.o.Workers)},
		Cgroup: g.cgroup, Log: g.logFile, Logger: g.log,
		Serving: func() int {
			if s := g.door.Status(); s.Up {
				return s.PID
			}
			return 0
		},
	})
	return g, nil
}

// admin is the socket of its administrator's door.
func (g *group) admin() string { return filepath.Join(g.dir, "admin") }

// up: it takes connections.
func up(s door.Status) bool { return s.Up && s.Applied > 0 }

func (g *group) up() bool { return up(g.door.Status()) }

// sure: whether it is up is certain. A proxy that runs since before the agent
// needs a moment to find the door.
func (g *group) sure() bool { return g.heard.Load() || time.Since(g.begun) >= firstPatience }

// run keeps the proxy until ctx is done, or it was ended.
func (g *group) run(ctx context.Context) error {
	defer g.ended.Store(true)
	all, ctx := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(ctx)
	defer stop()
	all.Go(func() error { return g.door.Run(running) })
	all.Go(func() error {
		defer stop()
		return g.keeper.Run(ctx)
	})
	err := all.Wait()
	if ctx.Err() == nil { // it was ended
		err = errors.Join(err, os.RemoveAll(g.dir))
	}
	return err
}

func (g *group) end() { g.keeper.End() }

func (g *group) over() bool { return g.ended.Load() }

// set gives the proxy what is new.
func (g *group) set(in *Input, records string, o *Options) {
	mine := in.Interfaces[g.name]
	cfg := g.builder.Build(mesh.Input{Name: g.name, Snapshot: in.Snapshot, Interfaces: mine, Certificates: in.Certificates, Records: records, Workers: o.Workers, Mark: o.Mark})
	next := door.State{Config: g.state.Config, Sockets: map[string]*door.Sockets{}}
	if cfg != g.whole {
		g.whole, next.Config = cfg, cfg
		if len(g.leftOut) > 0 { // it would be refused for the same
			next.Config, g.leftOut = mesh.Sound(cfg)
		}
	}
	for i := range mine {
		if s := in.Sockets[mine[i].Namespace]; s != nil {
			next.Sockets[mine[i].Namespace] = s
		}
	}
	if g.number > 0 && next.Config == g.state.Config && sameSockets(next.Sockets, g.state.Sockets) {
		return
	}
	g.send(next)
	for k := range g.since {
		if !slices.ContainsFunc(mine, func(i mesh.Interface) bool { return i.Key == k }) {
			delete(g.since, k)
		}
	}
	for i := range mine {
		if _, known := g.since[mine[i].Key]; !known {
			g.since[mine[i].Key] = g.number
		}
	}
}

func (g *group) send(s door.State) {
	g.state, g.sent = s, time.Now()
	g.number = g.door.Set(s)
}

func sameSockets(a, b map[string]*door.Sockets) bool {
	if len(a) != len(b) {
		return false
	}
	for name, s := range a {
		if b[name] != s {
			return false
		}
	}
	return true
}

// answered is nil when the proxy serves what it must be, or is not there.
func (g *group) answered() error {
	if g.number == 0 {
		return nil
	}
	s := g.door.Status()
	switch {
	case s.Applied >= g.number:
		g.was = true
		return nil
	case s.Refused >= g.number:
		return g.refused(s.Reason)
	case s.Up && time.Since(g.sent) < patience, !s.Up && !g.was && time.Since(g.begun) < firstPatience:
		return fmt.Errorf("%w: %s", ErrNotYet, g.name)
	case s.Up:
		return fmt.Errorf("the proxy %s does not answer; its log says why", g.name)
	}
	return nil // it is not there, and what needs it is refused
}

// refused tries what is sound of a configuration that was refused.
func (g *group) refused(reason string) error {
	if len(g.leftOut) == 0 {
		sound, why := mesh.Sound(g.whole)
		if len(why) > 0 {
			g.log.Error("a part of the proxy's configuration is left out", "why", why)
			g.leftOut = why
			g.send(door.State{Config: sound, Sockets: g.state.Sockets})
			return fmt.Errorf("%w: %s", ErrNotYet, g.name)
		}
	}
	return fmt.Errorf("the proxy %s refuses its configuration: %s", g.name, reason)
}

// serves says why an interface is not served; "": it is.
func (g *group) serves(k snapshot.AttachmentKey) string {
	number, known := g.since[k]
	s := g.door.Status()
	switch {
	case s.Refused >= g.number && g.number > 0:
		return "its proxy refuses its configuration: " + s.Reason
	case !up(s):
		return "its proxy is not there"
	case !known || s.Applied < number:
		return "its proxy does not know it yet"
	}
	name := k.Project + "/" + k.Workload
	for i := range g.state.Config.Mesh.Workloads {
		w := &g.state.Config.Mesh.Workloads[i]
		if w.Name == name && w.Mode != snapshot.Off.String() && w.Certificate == "" {
			return "it has no certificate yet"
		}
	}
	return ""
}
