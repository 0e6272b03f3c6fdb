package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/snapshot"
)

const (
	// startup bounds the start of moired, and settled how long a fleet may take
	// until nothing happens any more.
	startup = time.Minute
	settled = 4 * time.Minute
	// calm is how long no node got anything and moired did (nearly) nothing.
	calm = 2 * time.Second
	// atOnce is how many objects are created side by side.
	atOnce = 8
	// tick of the CPU times in /proc, the same on every Linux that runs Go.
	tick = 10 * time.Millisecond
)

// moired is the real control plane, a process of its own.
type moired struct {
	cmd  *exec.Cmd
	dir  string
	log  *os.File
	done chan error
}

// startMoired runs the binary until it has written join.json.
func startMoired(ctx context.Context, binary, dir string) (*moired, error) {
	m := &moired{dir: dir, done: make(chan error, 1)}
	var err error
	if m.log, err = os.Create(filepath.Join(dir, "moired.log")); err != nil {
		return nil, err
	}
	discovery, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	m.cmd = exec.CommandContext(ctx, binary, "--dir", filepath.Join(dir, "state"), "--run-dir", dir,
		"--api-listen", "127.0.0.1:0", "--discovery-listen", discovery)
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	m.cmd.Cancel = func() error { return m.cmd.Process.Signal(os.Interrupt) }
	m.cmd.WaitDelay = 20 * time.Second
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w; build it with make build, or name it with -moired", binary, err)
	}
	go func() { m.done <- m.cmd.Wait() }()
	for end := time.Now().Add(startup); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(m.path("join.json")); err == nil {
			return m, nil
		}
		select {
		case err := <-m.done:
			return nil, errors.Join(fmt.Errorf("moired ended before it was ready: %w", err), m.said())
		default:
		}
	}
	return nil, errors.Join(fmt.Errorf("moired was not ready after %s", startup), m.said())
}

func (m *moired) path(name string) string { return filepath.Join(m.dir, name) }

// said is the end of its log.
func (m *moired) said() error {
	b, err := os.ReadFile(m.log.Name())
	if err != nil {
		return err
	}
	return errors.New(string(b[max(0, len(b)-2000):]))
}

func (m *moired) stop() {
	_ = m.cmd.Process.Signal(os.Interrupt)
	<-m.done
	_ = m.log.Close()
}

// used is the CPU time of the process so far.
func (m *moired) used() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(b), ") ") // the name may hold spaces
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc: cannot read %q", b)
	}
	user, errU := strconv.ParseInt(fields[11], 10, 64)
	system, errS := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(errU, errS)
}

func freePort(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// fleet is the whole: the control plane, its API, and the nodes.
type fleet struct {
	moired *moired
	api    *api
	world  *world // what shall be; its addresses and numbers do not count
	agents []*agent
}

// whole measures the real control plane from one end to the other.
func whole(ctx context.Context, s size, binary string, changes int) (r figures, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "moire-fleet-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	f := &fleet{world: newWorld(s)}
	if f.moired, err = startMoired(ctx, binary, dir); err != nil {
		return r, err
	}
	defer f.moired.stop()
	if f.api, err = newAPI(f.moired.path("kubeconfig")); err != nil {
		return r, err
	}
	if err := f.create(ctx); err != nil {
		return r, err
	}
	running, stop := context.WithCancel(ctx)
	var g errgroup.Group
	defer func() { stop(); _ = g.Wait() }()
	if err := f.connect(running, &g); err != nil {
		return r, err
	}
	if err := f.settle(ctx); err != nil {
		return r, err
	}
	return f.measure(ctx, changes)
}

// create makes all objects of the fleet over the API.
func (f *fleet) create(ctx context.Context) error {
	begin := time.Now()
	const ours = "moire.dev/v1alpha1"
	if err := f.api.post(ctx, "/apis/"+ours+"/domains", ours, "Domain", &v1alpha1.Domain{ObjectMeta: metav1.ObjectMeta{Name: "d"}}); err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for project := range f.world.Projects {
		g.Go(func() error {
			err := f.api.post(ctx, "/api/v1/namespaces", "v1", "Namespace", map[string]any{"metadata": map[string]any{"name": project, "labels": map[string]string{v1alpha1.DomainLabel: "d"}}})
			if err != nil {
				return err
			}
			key := compile.Key{Project: project, Name: "main"}
			return f.api.post(ctx, path("networks", key, true), ours, "Network", &v1alpha1.Network{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Spec: f.world.Networks[key].Spec})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, key := range f.world.services {
		g.Go(func() error {
			return errors.Join(
				f.api.post(ctx, path("services", key, true), ours, "Service", f.world.Services[key]),
				f.api.post(ctx, path("policies", key, true), ours, "Policy", f.world.Policies[key]))
		})
	}
	err := g.Wait()
	fmt.Fprintf(os.Stderr, "  objects created in %.0f s\n", time.Since(begin).Seconds())
	return err
}

// connect joins and starts all nodes, with all that is attached to them.
func (f *fleet) connect(ctx context.Context, g *errgroup.Group) error {
	var join struct {
		Servers       []string
		Token, CAHash string
	}
	b, err := os.ReadFile(f.moired.path("join.json"))
	if err == nil {
		err = json.Unmarshal(b, &join)
	}
	if err != nil {
		return err
	}
	for i := range f.world.size.Nodes {
		a, err := newAgent(ctx, meeting{join.Servers[0], join.Token, join.CAHash}, f.moired.dir, i, f.world.Reports[nodeName(i)].Attachments)
		if err != nil {
			return err
		}
		f.agents = append(f.agents, a)
		g.Go(func() error { return a.client.Run(ctx) })
	}
	return nil
}

// settle waits until everything is attached, known and quiet.
func (f *fleet) settle(ctx context.Context) error {
	begin := time.Now()
	var last time.Duration
	for time.Since(begin) < settled {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-f.moired.done:
			f.moired.done <- err
			return errors.Join(fmt.Errorf("moired ended: %w", err), f.moired.said())
		case <-time.After(calm):
		}
		now, err := f.moired.used()
		if err != nil {
			return err
		}
		busy := now - last
		last = now
		missing, newest := 0, time.Time{}
		for _, a := range f.agents {
			m, at := a.missing()
			missing += m
			if at.After(newest) {
				newest = at
			}
		}
		if missing == 0 && time.Since(newest) > calm && busy < calm/10 {
			fmt.Fprintf(os.Stderr, "  %d endpoints attached, known and quiet after %.0f s; moired used %.1f s of CPU\n", f.world.size.Endpoints, time.Since(begin).Seconds(), now.Seconds())
			return nil
		}
		fmt.Fprintf(os.Stderr, "  %.0f s: %d attachments wait; CPU %.0f %%\n", time.Since(begin).Seconds(), missing, 100*busy.Seconds()/calm.Seconds())
	}
	return fmt.Errorf("the fleet was not quiet after %s", settled)
}

// measure makes the changes, one after the other.
func (f *fleet) measure(ctx context.Context, changes int) (r figures, err error) {
	var asked, answered []float64
	for _, a := range f.agents {
		a.mark()
		r.First += kib(snapshot.Diff(nil, a.base)) / float64(len(f.agents))
	}
	before, err := f.moired.used()
	if err != nil {
		return r, err
	}
	for i := range changes {
		one, err := f.change(ctx, i)
		if err != nil {
			return r, fmt.Errorf("change %d: %w", i, err)
		}
		asked, answered = append(asked, one.asked), append(answered, one.answered)
		r.Bytes += one.sent / float64(changes)
		time.Sleep(pace)
	}
	after, err := f.moired.used()
	if err != nil {
		return r, err
	}
	r.CPU = float64((after - before).Milliseconds()) / float64(changes)
	if r.MiB, err = residentOf(fmt.Sprint(f.moired.cmd.Process.Pid)); err != nil {
		return r, err
	}
	r.P50, r.P99 = percentiles(answered)
	p50, p99 := percentiles(asked)
	fmt.Fprintf(os.Stderr, "  from the request: p50 %.0f ms, p99 %.0f ms; from the answer of the API: p50 %.0f ms, p99 %.0f ms\n", p50, p99, r.P50, r.P99)
	r.Asked50, r.Asked99 = p50, p99
	return r, nil
}

// taken is what one change took: milliseconds from the request and from the
// answer of the API to the last node that needs it, and KiB to all nodes.
type taken struct{ asked, answered, sent float64 }

// change makes the i-th change of the world real and waits until every node
// that needs it has it: all that host the Network.
func (f *fleet) change(ctx context.Context, i int) (t taken, err error) {
	made := f.world.change(i)
	for _, a := range f.agents {
		a.mark()
	}
	var do func() error
	var proof func(*agent, *snapshot.Snapshot) bool
	project := made.key.Project
	switch {
	case made.drained != "":
		do = func() error {
			return f.api.patch(ctx, path("services", made.key, false), map[string]any{"spec": map[string]any{"drain": []string{made.drained}}})
		}
		proof = func(_ *agent, s *snapshot.Snapshot) bool { return drained(s, made.key, made.drained) }
	case made.port != 0:
		do = func() error {
			return f.api.patch(ctx, path("policies", made.key, false), map[string]any{"spec": map[string]any{"ingress": f.world.Policies[made.key].Spec.Ingress}})
		}
		proof = func(_ *agent, s *snapshot.Snapshot) bool { return allows(s, made.key, made.port) }
	default:
		node := f.agents[slices.IndexFunc(f.agents, func(a *agent) bool { return a.name == made.node })]
		first := node.first()
		project = first.Project
		do = func() error { node.remac(made.mac); return nil }
		proof = func(_ *agent, s *snapshot.Snapshot) bool {
			return s.Endpoints[snapshot.Addr{VNI: first.VNI, IP: first.Addresses[0]}].MAC == made.mac
		}
	}
	need := slices.DeleteFunc(slices.Clone(f.agents), func(a *agent) bool { return !a.hosts(project) })
	all := await(need, proof)
	began := time.Now()
	if err := do(); err != nil {
		return t, err
	}
	done := time.Now()
	last, err := all(ctx)
	if err != nil {
		return t, err
	}
	t.asked, t.answered = milliseconds(last.Sub(began)), max(0, milliseconds(last.Sub(done)))
	for _, a := range f.agents {
		t.sent += a.received()
	}
	return t, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func percentiles(times []float64) (p50, p99 float64) {
	slices.Sort(times)
	return times[len(times)/2], times[min(len(times)-1, len(times)*99/100)]
}
