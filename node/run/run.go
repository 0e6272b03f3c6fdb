package run

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"moire.dev/moire/node/local"
)

// Config says what to run and as whom.
type Config struct {
	// Socket of the agent; see local.Socket.
	Socket string
	// RunDir is where the namespace is shown while the command runs, as
	// <run dir>/netns/<project>.<workload>. Default: /run/moire.
	RunDir string

	Project  string
	Workload string // default: NameFor(Command[0])
	Networks []string
	// IfName, IfNames and DefaultRoute as in local.Attach.
	IfName       string
	IfNames      []string
	DefaultRoute string
	Account      string
	Labels       map[string]string
	// Wait bounds how long to wait for the attachment. Default: 10 s.
	Wait time.Duration

	Command []string
	Dir     string   // working directory; default: this one
	Env     []string // default: this process's
	// Stdin, Stdout, Stderr of the command. Default: this process's.
	Stdin, Stdout, Stderr *os.File
	// Attached, when set, is called before the command starts.
	Attached func(workload string, a local.Attached)
	// Warn, when set, hears what went wrong after the command had started.
	Warn func(error)
}

// Exit codes for commands that cannot be started, as shells have them.
const (
	CodeNotExecutable = 126
	CodeNotFound      = 127
)

var notName = regexp.MustCompile(`[^a-z0-9]+`)

// NameFor makes a Workload name of a command: its base name and five random
// characters.
func NameFor(command string) string {
	base := strings.Trim(notName.ReplaceAllString(strings.ToLower(filepath.Base(command)), "-"), "-")
	if base == "" {
		base = "workload"
	}
	base = strings.TrimRight(base[:min(len(base), 50)], "-")
	return base + "-" + strings.ToLower(rand.Text()[:5])
}

// Run attaches, runs the command and detaches. It returns the exit code of the
// command, 128 + the signal if one ended it. The error says why the command
// did not run; then the code is what a shell would return. Signals that this
// process gets go to the command; ctx ends it by SIGTERM, and after 10 s by
// SIGKILL.
func Run(ctx context.Context, c Config) (code int, err error) {
	path, code, err := find(c.Command)
	if err != nil {
		return code, err
	}
	c = c.withDefaults()
	ns, err := newNamespace(filepath.Join(c.RunDir, "netns", c.Project+"."+c.Workload))
	if err != nil {
		return 1, err
	}
	defer ns.close()
	client := local.NewClient(c.Socket)
	attached, err := client.Attach(ctx, local.Attach{
		Project: c.Project, Workload: c.Workload, Networks: c.Networks,
		IfName: c.IfName, IfNames: c.IfNames, DefaultRoute: c.DefaultRoute,
		Netns: ns.agentPath(), Account: c.Account, Labels: c.Labels,
		PID: os.Getpid(), WaitMillis: int(c.Wait / time.Millisecond),
	})
	if err != nil {
		return 1, err
	}
	defer func() {
		if derr := detach(client, c); derr != nil && c.Warn != nil {
			c.Warn(derr)
		}
	}()
	ns.show(c.Warn)
	if c.Attached != nil {
		c.Attached(c.Workload, attached)
	}
	c.Env = withWorkloadAPI(c.Env, attached.WorkloadAPI)
	return ns.run(ctx, c, path, local.ResolvConf(attached.Interfaces))
}

// endpointSocket is where a SPIFFE client looks for the Workload API.
const endpointSocket = "SPIFFE_ENDPOINT_SOCKET"

// withWorkloadAPI is the environment with the Workload API of this node: no other
// one knows who the command is.
func withWorkloadAPI(env []string, address string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, endpointSocket+"=") })
	if address != "" {
		env = append(env, endpointSocket+"="+address)
	}
	return env
}

// find is the path of the command, or why there is none, with the code that a
// shell would return.
func find(command []string) (path string, code int, err error) {
	if len(command) == 0 {
		return "", 2, errors.New("no command to run; write it after --")
	}
	path, err = exec.LookPath(command[0])
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", CodeNotExecutable, fmt.Errorf("%s cannot be executed: %w", command[0], err)
	case err != nil:
		return "", CodeNotFound, fmt.Errorf("%s is not found: %w", command[0], err)
	}
	return path, 0, nil
}

// detach works also when ctx is done. The agent would do it a moment later by
// itself.
func detach(client *local.Client, c Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := client.Detach(ctx, local.Detach{Project: c.Project, Workload: c.Workload})
	if errors.Is(err, local.ErrNotFound) {
		return nil
	}
	return err
}

func (c Config) withDefaults() Config {
	if c.RunDir == "" {
		c.RunDir = "/run/moire"
	}
	if c.Workload == "" {
		c.Workload = NameFor(c.Command[0])
	}
	if c.Env == nil {
		c.Env = os.Environ()
	}
	for f, std := range map[**os.File]*os.File{&c.Stdin: os.Stdin, &c.Stdout: os.Stdout, &c.Stderr: os.Stderr} {
		if *f == nil {
			*f = std
		}
	}
	if c.Warn == nil {
		c.Warn = func(error) {}
	}
	return c
}
