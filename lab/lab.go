package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"moire.dev/moire/node/local"
)

// stateDir is where state lies by default.
const stateDir = "/var/lib/moire"

// Config of a Lab. The zero value of a field means its default.
type Config struct {
	// Name marks everything that the lab makes. Default "moire-demo"; at most
	// 10 characters, because interface names are short.
	Name string
	// Nodes is how many. Default 2, at most 100.
	Nodes int
	// Underlay prefix; the host gets the first address, node i the address
	// 10+i. Default 198.18.77.0/24 (RFC 2544, never routed).
	Underlay netip.Prefix
	// Bin is where moired and moire-node are. Default: beside this executable.
	Bin string
	// Dir holds state and logs. Default /var/lib/moire/<name>.
	Dir string
	// RunDir holds sockets, pins and the kubeconfig. Default /run/moire.
	RunDir string
	// APIListen of moired. Default 127.0.0.1:7443.
	APIListen string
	// Direct joins exactly two nodes by a veth pair of their own as underlay,
	// 198.18.78.1 and .2; the bridge then carries only control traffic.
	Direct bool
	// Proxy says how many proxies a node has: node (one for all its Workloads),
	// project or workload (one for each). Default node.
	Proxy string
	// NameServers (host:port) that moired asks. Default: those of the machine.
	NameServers []string
	// Progress is told what is being done. Default: nobody.
	Progress func(string)
}

// Lab is a set of nodes on this machine.
type Lab struct {
	Config
	Nodes   []*Node
	Control *Process
}

// Node is one node of a Lab.
type Node struct {
	Name    string // n1, n2, ...
	Netns   string // path
	Address netip.Addr
	Agent   *Process
	port    string
	foot    netip.Addr // on the bridge
}

// New checks the config and starts nothing.
func New(c Config) (*Lab, error) {
	if c.Name == "" {
		c.Name = "moire-demo"
	}
	if len(c.Name) > 10 {
		return nil, fmt.Errorf("lab name %q is longer than 10 characters; interface names are built from it", c.Name)
	}
	if c.Nodes == 0 {
		c.Nodes = 2
	}
	if c.Nodes < 1 || c.Nodes > 100 {
		return nil, fmt.Errorf("a lab has 1 to 100 nodes, not %d", c.Nodes)
	}
	if !c.Underlay.IsValid() {
		c.Underlay = netip.MustParsePrefix("198.18.77.0/24")
	}
	if c.Dir == "" {
		c.Dir = filepath.Join(stateDir, c.Name)
	}
	if c.RunDir == "" {
		c.RunDir = "/run/moire"
	}
	if c.APIListen == "" {
		c.APIListen = "127.0.0.1:7443"
	}
	if c.Proxy == "" {
		c.Proxy = "node"
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	if c.Bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, err
		}
		c.Bin = filepath.Dir(exe)
	}
	if c.Direct && c.Nodes != 2 {
		return nil, fmt.Errorf("a direct underlay joins exactly 2 nodes, not %d", c.Nodes)
	}
	l := &Lab{Config: c}
	for i := range c.Nodes {
		name := fmt.Sprintf("n%d", i+1)
		n := &Node{
			Name:  name,
			Netns: filepath.Join(netnsDir, c.Name+"-"+name),
			port:  fmt.Sprintf("%s-%d", c.Name, i+1),
			foot:  l.address(11 + i),
		}
		n.Address = n.foot
		if c.Direct {
			n.Address = netip.AddrFrom4([4]byte{198, 18, 78, byte(i + 1)})
		}
		l.Nodes = append(l.Nodes, n)
	}
	return l, nil
}

// address is the n-th address of the underlay.
func (l *Lab) address(n int) netip.Addr {
	b := l.Underlay.Masked().Addr().AsSlice()
	b[len(b)-1] += byte(n)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Kubeconfig is the file that moired writes.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.RunDir, "kubeconfig") }

// Up makes the namespaces and starts moired and the agents; it returns when
// all of them are ready.
func (l *Lab) Up(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root; run it with sudo")
	}
	for _, b := range []string{"moired", "moire-node", "moire-proxy"} {
		if _, err := os.Stat(filepath.Join(l.Bin, b)); err != nil {
			return fmt.Errorf("%s is not beside this program: %w; build it with 'make build'", b, err)
		}
	}
	for _, d := range []string{l.Dir, l.RunDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	l.Progress(fmt.Sprintf("making an underlay with %d nodes", len(l.Nodes)))
	if err := l.wire(); err != nil {
		return err
	}
	l.Progress("starting the control plane (an API server and etcd)")
	if err := l.StartControl(ctx); err != nil {
		return err
	}
	for _, n := range l.Nodes {
		l.Progress("starting the agent of node " + n.Name)
		if err := l.StartAgent(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) wire() error {
	u := underlay{bridge: l.Name, host: netip.PrefixFrom(l.address(1), l.Underlay.Bits())}
	if err := u.up(); err != nil {
		return err
	}
	for _, n := range l.Nodes {
		if _, err := makeNetns(filepath.Base(n.Netns)); err != nil {
			return err
		}
		name := "up0"
		if l.Direct {
			name = "mg0"
		}
		if err := u.plug(n.port, n.Netns, name, netip.PrefixFrom(n.foot, l.Underlay.Bits())); err != nil {
			return err
		}
	}
	if l.Direct {
		return join(l.Nodes[0], l.Nodes[1])
	}
	return nil
}

// StartControl starts moired and waits until it is ready.
func (l *Lab) StartControl(ctx context.Context) error {
	joined := filepath.Join(l.RunDir, "join.json")
	os.Remove(joined)
	args := []string{"--dir", filepath.Join(l.Dir, "control"), "--run-dir", l.RunDir,
		"--api-listen", l.APIListen,
		"--discovery-listen", netip.AddrPortFrom(l.address(1), 7444).String(),
		"--advertise", l.address(1).String()}
	for _, s := range l.NameServers {
		args = append(args, "--name-servers", s)
	}
	p, err := start(l.Dir, "moired", "", filepath.Join(l.Bin, "moired"), args...)
	if err != nil {
		return err
	}
	l.Control = p
	// join.json is the last thing that moired writes before it is ready.
	return p.await(ctx, 60*time.Second, joined)
}

// StartAgent starts the node's agent and waits until it serves and speaks with
// the control plane.
func (l *Lab) StartAgent(ctx context.Context, n *Node) error {
	socket := filepath.Join(l.RunDir, n.Name+".sock")
	os.Remove(socket)
	p, err := start(l.Dir, n.Name, n.Netns, filepath.Join(l.Bin, "moire-node"), "run",
		"--name", n.Name, "--address", n.Address.String(), "--uplink", "up0", "--proxy", l.Proxy,
		"--dir", filepath.Join(l.Dir, "node", n.Name), "--run-dir", l.RunDir)
	if err != nil {
		return err
	}
	n.Agent = p
	if err := p.await(ctx, 30*time.Second, socket); err != nil {
		return err
	}
	return p.connected(ctx, 30*time.Second, socket)
}

// connected waits until the agent speaks with the control plane.
func (p *Process) connected(ctx context.Context, limit time.Duration, socket string) error {
	agent := local.NewClient(socket)
	began := time.Now()
	for time.Since(began) < limit {
		if st, err := agent.Status(ctx); err == nil && st.Connected {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return fmt.Errorf("%s ended: %w; the end of %s:\n%s", p.Name, p.err, p.Log, p.Tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not reach the control plane in %s; the end of %s:\n%s", p.Name, limit, p.Log, p.Tail())
}

// await waits until the file is newer than the process, the process ends, or
// the time is over.
func (p *Process) await(ctx context.Context, limit time.Duration, file string) error {
	began := time.Now()
	for time.Since(began) < limit {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return fmt.Errorf("%s ended: %w; the end of %s:\n%s", p.Name, p.err, p.Log, p.Tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s is not ready after %s; the end of %s:\n%s", p.Name, limit, p.Log, p.Tail())
}

// Down removes every trace, also of a lab that somebody else left behind.
func (l *Lab) Down(ctx context.Context) error {
	var errs []error
	for _, n := range l.Nodes {
		if n.Agent != nil {
			n.Agent.Stop(5 * time.Second)
		}
	}
	if l.Control != nil {
		l.Control.Stop(10 * time.Second)
	}
	errs = append(errs, endRemembered(ctx, l.Dir))
	errs = append(errs, l.unwire(ctx)...)
	errs = append(errs, l.Forget())
	return errors.Join(errs...)
}

// Forget removes the directory of state and logs, and the one above it when it
// is the default one and nobody else has something there.
func (l *Lab) Forget() error {
	err := os.RemoveAll(l.Dir)
	if filepath.Dir(l.Dir) == stateDir {
		_ = os.Remove(stateDir) // not empty: others have something there
	}
	return err
}
