package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/cli/check"
	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/supervise"
)

// upFlags are the flags of `moire up`.
type upFlags struct {
	dir, runDir string
	node        string
	address     string
	listen      string
	discovery   string
	limit       time.Duration
}

// notesFile is where `up` remembers what it started, inside the run directory.
const notesFile = "up.json"

func (a *app) upCommand() *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "up",
		Short: "Run a control plane and a node on this machine",
		Long: `Run a control plane (moired) and a node agent (moire-node) on this machine until
Ctrl-C. What was declared stays in --dir and is there again at the next start;
connections of workloads go on while they are restarted. 'moire down' removes
what up leaves in the kernel.`,
		Example: `  sudo moire up
  sudo moire up --node-name n1 --address 192.0.2.7     # other nodes may join`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.up(c.Context(), f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.dir, "dir", defaultStateDir, "directory of lasting state")
	fl.StringVar(&f.runDir, "run-dir", defaultRunDir, "directory of sockets, pins and the kubeconfig")
	fl.StringVar(&f.node, "node-name", "", "name of the node (default: the host name)")
	fl.StringVar(&f.address, "address", "", "underlay address of this machine; given, other nodes can join through it (default: that of the default route, and only this machine)")
	fl.StringVar(&f.listen, "api-listen", "127.0.0.1:7443", "host:port of the API server")
	fl.StringVar(&f.discovery, "discovery-listen", "", "host:port for other nodes (default: port 7444 of --address, or of loopback)")
	fl.DurationVar(&f.limit, "timeout", 2*time.Minute, "how long the start may take")
	return c
}

// upping is one run of `moire up`.
type upping struct {
	app   *app
	flags upFlags
	notes *supervise.Notes
	began time.Time
}

func (a *app) up(ctx context.Context, f upFlags) error {
	u := &upping{app: a, flags: f, began: time.Now()}
	if err := u.prepare(); err != nil {
		return err
	}
	control, err := u.control()
	if err != nil {
		return err
	}
	defer control.log.Close()
	agent, err := u.agent()
	if err != nil {
		return err
	}
	defer agent.log.Close()
	err = u.run(ctx, control, agent)
	if e := u.notes.Remove(); e != nil {
		a.say("warning: %v", e)
	}
	if err == nil {
		a.say("- stopped; 'moire up' goes on with what was declared, 'moire down' removes what is left in the kernel")
	}
	return err
}

// prepare checks what can be checked before anything is started.
func (u *upping) prepare() error {
	f := &u.flags
	if os.Geteuid() != 0 {
		return fault.New(fault.Forbidden, "sudo moire up", "a node changes the kernel's network and needs root")
	}
	for _, dir := range []*string{&f.dir, &f.runDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	if f.node == "" {
		name, err := hostNode()
		if err != nil {
			return err
		}
		f.node = name
	}
	if f.address != "" {
		if _, err := netip.ParseAddr(f.address); err != nil {
			return fault.Usagef("write an IP address such as 192.0.2.7", "--address: %v", err)
		}
	}
	for flag, listen := range map[string]string{"--api-listen": f.listen, "--discovery-listen": f.discovery} {
		if _, _, err := net.SplitHostPort(listen); err != nil && listen != "" {
			return fault.Usagef("write it like 127.0.0.1:7443", "%s: %v", flag, err)
		}
	}
	about, notes, err := supervise.ReadNotes(filepath.Join(f.runDir, notesFile))
	if err != nil {
		return fault.New(fault.Failed, "moire down", "what an earlier `moire up` left cannot be read: %v", err)
	}
	for _, n := range notes {
		if n.Alive() {
			return fault.New(fault.Failed, "end it with Ctrl-C where it runs, or with: moire down --run-dir "+f.runDir,
				"%s of another `moire up` (node %s) still runs as process %d", n.Name, about["node"], n.PID)
		}
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fault.New(fault.Failed, "end what listens there (a demo: moire demo down), or choose another with --api-listen",
			"the API server cannot listen at %s: %v", f.listen, err)
	}
	if err := l.Close(); err != nil {
		return err
	}
	for _, dir := range []string{f.runDir, filepath.Join(f.dir, "log")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fault.New(fault.Failed, "choose others with --dir and --run-dir", "%v", err)
		}
	}
	u.notes, err = supervise.NewNotes(filepath.Join(f.runDir, notesFile),
		map[string]string{"node": f.node, "dir": f.dir, "version": Version})
	return err
}

// program is one child with its log.
type program struct {
	supervise.Child
	log     *os.File
	logPath string
	// sign is the file that the program makes when it is ready.
	sign string
}

func (u *upping) program(name, sign string, grace time.Duration, args ...string) (*program, error) {
	path, err := check.Binary(name)
	if err != nil {
		return nil, fault.New(fault.Failed, "put it beside moire, or build it with `make build`", "%v", err)
	}
	p := &program{logPath: filepath.Join(u.flags.dir, "log", name+".log"), sign: sign}
	if p.log, err = os.OpenFile(p.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640); err != nil {
		return nil, err
	}
	p.Child = supervise.Child{
		Name: name, Path: path, Args: args, Log: p.log, Notes: u.notes, Grace: grace,
		Tell: func(text string) { u.app.say("- %s (log: %s)", text, p.logPath) },
	}
	return p, nil
}

func (u *upping) control() (*program, error) {
	args := []string{"--dir", filepath.Join(u.flags.dir, "control"), "--run-dir", u.flags.runDir, "--api-listen", u.flags.listen}
	discovery := u.flags.discovery
	if u.flags.address != "" {
		args = append(args, "--advertise", u.flags.address)
		if discovery == "" {
			discovery = net.JoinHostPort(u.flags.address, strconv.Itoa(discoveryPort))
		}
	}
	if discovery != "" {
		args = append(args, "--discovery-listen", discovery)
	}
	return u.program("moired", filepath.Join(u.flags.runDir, "join.json"), 20*time.Second, args...)
}

func (u *upping) agent() (*program, error) {
	args := []string{"run", "--name", u.flags.node, "--dir", filepath.Join(u.flags.dir, "node", u.flags.node), "--run-dir", u.flags.runDir}
	if u.flags.address != "" {
		args = append(args, "--address", u.flags.address)
	}
	return u.program("moire-node", filepath.Join(u.flags.runDir, u.flags.node+".sock"), 10*time.Second, args...)
}

// run starts the control plane, then the agent, stays, and ends them in the
// reverse order.
func (u *upping) run(ctx context.Context, control, agent *program) error {
	defer u.forget()
	endControl, err := u.start(ctx, control, "starting the control plane (an API server and etcd)")
	defer endControl()
	if err != nil {
		return err
	}
	endAgent, err := u.start(ctx, agent, "starting the agent of node "+u.flags.node)
	defer endAgent()
	if err != nil {
		return err
	}
	u.awaitNode(ctx)
	if ctx.Err() != nil {
		return nil
	}
	u.app.say("- ready after %.1f s; logs: %s", time.Since(u.began).Seconds(), filepath.Dir(control.logPath))
	if err := u.app.print("%s", u.howToGoOn()); err != nil {
		return err
	}
	<-ctx.Done()
	u.app.say("- stopping")
	return nil
}

// forget removes the files that are true only while the control plane runs:
// who finds them believes that there is one.
func (u *upping) forget() {
	for _, name := range []string{"join.json", "kubeconfig"} {
		if err := os.Remove(filepath.Join(u.flags.runDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			u.app.say("warning: %v", err)
		}
	}
}

// start starts a program and waits until it is ready. The function that it
// returns ends the program and waits for its end.
func (u *upping) start(ctx context.Context, p *program, what string) (end func(), err error) {
	u.app.say("- %s", what)
	if err := os.Remove(p.sign); err != nil && !errors.Is(err, os.ErrNotExist) {
		return func() {}, err
	}
	// Not derived from ctx: Ctrl-C must not end all programs at once.
	own, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(own) }()
	var result error
	end = func() {
		cancel()
		if result == nil {
			result = <-done
		}
	}
	limit := time.NewTimer(u.flags.limit)
	defer limit.Stop()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return end, nil
		case result = <-done:
			tick.Stop()
			return func() {}, u.broken(p, result)
		case <-limit.C:
			tick.Stop()
			return end, exitTimeout("look at the log "+p.logPath+", or allow more with --timeout", "%s is not ready after %s; the end of its log:\n%s", p.Name, u.flags.limit, supervise.Tail(p.logPath, 10))
		case <-tick.C:
			if exists(p.sign) {
				tick.Stop()
				return end, nil
			}
			if err := p.Last(); err != nil {
				tick.Stop()
				return end, u.broken(p, err)
			}
		}
	}
}

// awaitNode waits until the control plane says that the node is Ready. When it
// does not, people are told what is wrong and may mend it while both run.
func (u *upping) awaitNode(ctx context.Context) {
	u.app.say("- waiting until node %s is ready", u.flags.node)
	ctx, cancel := context.WithTimeout(ctx, u.flags.limit)
	defer cancel()
	why := "the control plane has not heard of it"
	client, err := remote.Open(remote.Config{Kubeconfig: filepath.Join(u.flags.runDir, "kubeconfig"), Timeout: 5 * time.Second, Agent: "moire/" + Version})
	for err == nil {
		var nodes []v1alpha1.Node
		if nodes, err = nodesOf(ctx, client); err != nil {
			break
		}
		for _, s := range statusLines(nodes) {
			if s.Node != u.flags.node {
				continue
			}
			if s.State == v1alpha1.NodeReady {
				return
			}
			why = s.State + ": " + orNone(s.LastError)
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		why, _ = fault.Parts(err)
	}
	u.app.say("warning: node %s is not ready: %s; see `moire status`", u.flags.node, why)
}

func (u *upping) broken(p *program, err error) error {
	return fault.New(fault.Failed, "mend what the log says; `moire check --pre` looks for what this machine lacks", "%s did not become ready: %v; the end of %s:\n%s", p.Name, err, p.logPath, supervise.Tail(p.logPath, 10))
}

func (u *upping) howToGoOn() string {
	return fmt.Sprintf(`Go on in another terminal, as root:

  export KUBECONFIG=%s
  moire status
  moire apply -f FILE
  moire run --project P --network N -- CMD
  moire flows -f

Ctrl-C here ends it.`, filepath.Join(u.flags.runDir, "kubeconfig"))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
