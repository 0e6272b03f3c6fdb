package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// process is a child that can be killed and started again.
type process struct {
	name  string
	start func() *exec.Cmd
	mute  bool // it does not say "ready"
	cmd   *exec.Cmd
	dir   string
	at    string // where nodes connect
}

func (p *process) run(t *testing.T) {
	t.Helper()
	p.cmd = p.start()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	if p.mute {
		return
	}
	if s := bufio.NewScanner(out); !s.Scan() || s.Text() != "ready" {
		t.Errorf("%s says %q", p.name, s.Text())
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	_ = p.cmd.Wait()
}

// cluster is three control planes on three members of etcd.
type cluster struct {
	t        *testing.T
	members  []*process
	controls []*process
	join     joining
	agents   []*agent
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	bin, err := exec.LookPath("etcd")
	if err != nil {
		if os.Getenv("MOIRE_REQUIRE_ROOT") != "" {
			t.Fatal("this test needs the program etcd; install etcd-server")
		}
		t.Skip("this test needs the program etcd; install etcd-server")
	}
	c := &cluster{t: t}
	dir := t.TempDir()
	var clients, peers, initial []string
	for i := range 3 {
		clients, peers = append(clients, "http://"+freePort(t)), append(peers, "http://"+freePort(t))
		initial = append(initial, fmt.Sprintf("e%d=%s", i, peers[i]))
	}
	for i := range 3 {
		name := fmt.Sprint("e", i)
		c.members = append(c.members, &process{name: name, mute: true, start: func() *exec.Cmd {
			return exec.Command(bin, "--name", name, "--data-dir", filepath.Join(dir, name), "--listen-client-urls", clients[i], "--advertise-client-urls", clients[i],
				"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i], "--initial-cluster", strings.Join(initial, ","), "--log-level", "error")
		}})
		home, at := filepath.Join(dir, fmt.Sprint("c", i)), freePort(t)
		c.controls = append(c.controls, &process{name: fmt.Sprint("c", i), dir: home, at: at, start: func() *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+home, childEnv+"_LISTEN="+at, childEnv+"_ETCD="+strings.Join(clients, ","))
			return cmd
		}})
		c.join.Servers = append(c.join.Servers, at)
	}
	for _, p := range slices.Concat(c.members, c.controls) {
		t.Cleanup(func() {
			if p.cmd != nil {
				_ = p.cmd.Process.Signal(syscall.SIGCONT)
				p.kill()
			}
		})
	}
	for _, m := range c.members {
		m.run(t)
	}
	// At the same time, so that they make the CA at the same time.
	var up sync.WaitGroup
	for _, p := range c.controls {
		up.Go(func() { p.run(t) })
	}
	up.Wait()
	for i, p := range c.controls {
		b, err := os.ReadFile(filepath.Join(p.dir, "run", joinFile))
		var j joining
		if err != nil || json.Unmarshal(b, &j) != nil || i > 0 && j.CAHash != c.join.CAHash {
			t.Fatalf("%s: %s, %v; the first says %s", p.name, b, err, c.join.CAHash)
		}
		c.join.Token, c.join.CAHash = j.Token, j.CAHash
	}
	return c
}

// api is the API of one process.
func (c *cluster) api(p *process) (clients, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(p.dir, "run", "kubeconfig"))
	if err != nil {
		return clients{}, err
	}
	cfg.Timeout = 5 * time.Second
	return newClients(cfg)
}

// leader is who has the lease now.
func (c *cluster) leader() *process {
	for _, p := range c.controls {
		api, err := c.api(p)
		if err != nil {
			continue
		}
		var lease struct {
			Spec struct {
				HolderIdentity string `json:"holderIdentity"`
			} `json:"spec"`
		}
		b, err := api.core.Get().AbsPath("/apis/coordination.k8s.io/v1/namespaces/moire-system/leases/moired").DoRaw(c.t.Context())
		if err != nil || json.Unmarshal(b, &lease) != nil {
			continue
		}
		for _, o := range c.controls {
			name, err := os.ReadFile(filepath.Join(o.dir, "control", "instance"))
			if err == nil && strings.TrimSpace(string(name)) == lease.Spec.HolderIdentity {
				return o
			}
		}
	}
	return c.controls[0]
}

// write makes an object at whichever process answers, and counts as done only
// what was acknowledged.
func (c *cluster) write(what string, send func(api clients) error) {
	c.t.Helper()
	eventually(c.t, what, func() error {
		var errs []error
		for _, p := range c.controls {
			api, err := c.api(p)
			if err == nil {
				err = send(api)
			}
			if err == nil || strings.Contains(err.Error(), "already exists") {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// round makes a Network, a Service and a Workload, and waits until all have
// what they need. It returns how long that took.
func (c *cluster) round(name string) time.Duration {
	c.t.Helper()
	begin := time.Now()
	c.write("a Network", func(api clients) error {
		return api.moire.Post().Namespace("shop").Resource("networks").Body(network("shop", name, "10.0.0.0/24")).Do(c.t.Context()).Error()
	})
	c.write("a Service", func(api clients) error {
		s := &v1alpha1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: v1alpha1.ServiceSpec{
			Networks: []v1alpha1.ServiceNetwork{{Network: name}}, Ports: []v1alpha1.ServicePort{{Port: 80}}, Selector: &metav1.LabelSelector{}}}
		return api.moire.Post().Namespace("shop").Resource("services").Body(s).Do(c.t.Context()).Error()
	})
	for i, a := range c.agents {
		a.attach("shop", fmt.Sprint(name, "-", i), name)
	}
	eventually(c.t, name+" is everywhere", func() error {
		for _, a := range c.agents {
			for i := range c.agents {
				if _, err := a.endpoint("shop", fmt.Sprint(name, "-", i)); err != nil {
					return err
				}
			}
			s, _ := a.now()
			if !slices.ContainsFunc(slices.Collect(maps.Values(s.Services)), func(s snapshot.Service) bool { return s.Name == name && len(s.Backends) == len(c.agents) }) {
				return fmt.Errorf("%s does not know Service %s with %d backends", a.name, name, len(c.agents))
			}
		}
		return nil
	})
	return time.Since(begin)
}

// connected waits until every node is, watching from the begin of do.
func (c *cluster) connected(do func()) (longest time.Duration) {
	c.t.Helper()
	begin := time.Now()
	do()
	var since time.Time
	for (time.Since(begin) < 300*time.Millisecond || !since.IsZero()) && time.Since(begin) < 30*time.Second {
		away := slices.ContainsFunc(c.agents, func(a *agent) bool { return !a.client.Connected() })
		switch {
		case away && since.IsZero():
			since = time.Now()
		case !away && !since.IsZero():
			longest, since = max(longest, time.Since(since)), time.Time{}
		}
		time.Sleep(time.Millisecond)
	}
	eventually(c.t, "every node has a control plane", func() error {
		for _, a := range c.agents {
			if !a.client.Connected() {
				return fmt.Errorf("%s has none: %s", a.name, a.client.Trouble())
			}
		}
		return nil
	})
	return longest
}

// once: nothing was given to two.
func (c *cluster) once() {
	c.t.Helper()
	var list v1alpha1.NetworkList
	c.write("list", func(api clients) error {
		return api.moire.Get().Resource("networks").Do(c.t.Context()).Into(&list)
	})
	vnis := map[int32]string{}
	for _, n := range list.Items {
		if other, twice := vnis[n.Status.VNI]; twice && n.Status.VNI != 0 {
			c.t.Errorf("Networks %s and %s have id %d", other, n.Name, n.Status.VNI)
		}
		vnis[n.Status.VNI] = n.Name
		blocks := map[string]string{}
		for _, b := range n.Status.Blocks {
			if other, twice := blocks[b.CIDR]; twice {
				c.t.Errorf("block %s belongs to %s and %s", b.CIDR, other, b.Node)
			}
			blocks[b.CIDR] = b.Node
		}
	}
	s, _ := c.agents[0].now()
	macs := map[snapshot.MAC]string{}
	for at, e := range s.Endpoints {
		if other, twice := macs[e.MAC]; twice {
			c.t.Errorf("%s and %s have MAC %s", other, e.Workload, e.MAC)
		}
		macs[e.MAC] = e.Workload
		for _, sv := range s.Services {
			if sv.Addr == at {
				c.t.Errorf("%s is the address of Service %s and Workload %s", at, sv.Name, e.Workload)
			}
		}
	}
}

// TestThreeControls: three processes on a database of three members; each may
// be killed or frozen at any time, and so may a member. Nodes go on to the next
// process, somebody allocates, nothing that was acknowledged is lost, nothing
// is given out twice. MOIRE_LONG=<duration> goes on for that long.
func TestThreeControls(t *testing.T) {
	c := newCluster(t)
	first := &running{t: t, Control: &Control{}}
	api, err := c.api(c.controls[0])
	if err != nil {
		t.Fatal(err)
	}
	first.clients.Store(&api)
	first.create(domain("acme"), projectOf("shop", "acme"))
	for i := range 3 {
		j := c.join
		j.Servers = append(slices.Clone(j.Servers[i:]), j.Servers[:i]...)
		c.agents = append(c.agents, newAgentOf(t, j, fmt.Sprint("node-", i)))
	}
	t.Logf("quiet: all there after %s", c.round("quiet"))
	var watches []func() error
	for _, a := range c.agents {
		watches = append(watches, watchLosses(a))
	}
	hurt := func(name string, p *process, how func(*process), heal func(*process)) {
		back := c.connected(func() { how(p) })
		if back > 2*time.Second {
			t.Errorf("%s: a node had no control plane for %s", name, back)
		}
		took := c.round(name)
		t.Logf("%s (%s): nodes connected after %s, something new everywhere after %s", name, p.name, back, took)
		heal(p)
		c.once()
	}
	kill, again := func(p *process) { p.kill() }, func(p *process) { p.run(t) }
	freeze, thaw := func(p *process) { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }, func(p *process) { _ = p.cmd.Process.Signal(syscall.SIGCONT) }
	hurt("leader-killed", c.leader(), kill, again)
	hurt("member-killed", c.members[rand.IntN(3)], kill, again)
	hurt("leader-frozen", c.leader(), freeze, thaw)
	if long, err := time.ParseDuration(os.Getenv("MOIRE_LONG")); err == nil {
		for i, end := 0, time.Now().Add(long); time.Now().Before(end); i++ {
			p := slices.Concat(c.members, c.controls)[rand.IntN(6)]
			if rand.IntN(3) == 0 {
				hurt(fmt.Sprint("frozen-", i), p, freeze, thaw)
			} else {
				hurt(fmt.Sprint("killed-", i), p, kill, again)
			}
		}
	}
	t.Logf("quiet again: all there after %s", c.round("quiet-again"))
	for i, watch := range watches {
		if err := watch(); err != nil {
			t.Errorf("node-%d: %v", i, err)
		}
	}
}
