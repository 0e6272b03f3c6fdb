package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/check"
	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/supervise"
)

func (a *app) downCommand() *cobra.Command {
	var dir, runDir, node string
	var purge bool
	c := &cobra.Command{
		Use:   "down",
		Short: "Remove what `moire up` left on this machine",
		Long: `End what 'moire up' started, if it still runs, and remove what it left: programs,
interfaces and pins in the kernel, sockets. What was declared stays in --dir for
the next 'moire up'; --purge removes that too, and cannot be undone.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.down(c.Context(), dir, runDir, node, purge) },
	}
	c.Flags().StringVar(&dir, "dir", "", "directory of lasting state (default: that of the last up, "+defaultStateDir+")")
	c.Flags().StringVar(&runDir, "run-dir", defaultRunDir, "directory of sockets, pins and the kubeconfig")
	c.Flags().StringVar(&node, "node-name", "", "name of the node (default: that of the last up, the host name)")
	c.Flags().BoolVar(&purge, "purge", false, "remove also everything that was declared and allocated")
	return c
}

func (a *app) down(ctx context.Context, dir, runDir, node string, purge bool) error {
	if os.Geteuid() != 0 {
		return fault.New(fault.Forbidden, "sudo moire down", "what is left in the kernel can be removed only by root")
	}
	about, notes, err := supervise.ReadNotes(filepath.Join(runDir, notesFile))
	if err != nil {
		a.say("warning: what was started is not known: %v", err)
	}
	if dir == "" {
		if dir = about["dir"]; dir == "" {
			dir = defaultStateDir
		}
	}
	if node == "" {
		if node = about["node"]; node == "" {
			if node, err = hostNode(); err != nil {
				return err
			}
		}
	}
	// The agent before the control plane, as up does.
	slices.Reverse(notes)
	for _, n := range notes {
		if n.Alive() {
			a.say("- ending %s (process %d)", n.Name, n.PID)
		}
		if err := n.End(ctx, 20*time.Second); err != nil {
			return err
		}
	}
	errs := []error{a.cleanup(ctx, runDir, node)}
	for _, name := range ownFiles(runDir, node) {
		if err := os.Remove(filepath.Join(runDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := os.Remove(runDir); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.say("- %s stays, because somebody else has something there", runDir)
	}
	if purge {
		a.say("- removing what was declared and allocated: %s", dir)
		for _, part := range []string{"control", filepath.Join("node", node), "log"} {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, part)))
		}
		// Other nodes of this machine may have theirs there.
		if os.Remove(filepath.Join(dir, "node")) == nil {
			_ = os.Remove(dir)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	a.say("- done")
	return nil
}

// ownFiles are the files of `up` in the run directory. Those of the control
// plane are not its own when agents of others serve there, such as a demo's.
func ownFiles(runDir, node string) []string {
	own := []string{notesFile, node + ".sock"}
	sockets, err := filepath.Glob(filepath.Join(runDir, "*.sock"))
	if err == nil && !slices.ContainsFunc(sockets, serves) {
		own = append(own, "join.json", "kubeconfig")
	}
	return own
}

// serves says whether somebody listens at a socket.
func serves(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// cleanup lets moire-node remove its kernel state.
func (a *app) cleanup(ctx context.Context, runDir, node string) error {
	path, err := check.Binary("moire-node")
	if err != nil {
		return fault.New(fault.Failed, "put moire-node beside moire and run `moire down` again", "the kernel state stays: %v", err)
	}
	a.say("- removing interfaces, programs and pins of node %s", node)
	cmd := exec.CommandContext(ctx, path, "cleanup", "--name", node, "--run-dir", runDir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fault.New(fault.Failed, "run it by hand: "+strings.Join(cmd.Args, " "), "moire-node cleanup: %v: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}

// hostNode is the default name of the node: the host name up to its first dot,
// as moire-node has it.
func hostNode() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fault.Usagef("give a name with --node-name", "this machine has no host name: %v", err)
	}
	name, _, _ := strings.Cut(strings.ToLower(host), ".")
	if name == "" {
		return "", fault.Usagef("give a name with --node-name", "the host name %q cannot be the name of a node", host)
	}
	return name, nil
}

func (a *app) tokenCommand() *cobra.Command {
	token := &cobra.Command{
		Use:   "token",
		Short: "Let nodes join",
		Args:  unknownCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var dir string
	create := &cobra.Command{
		Use:     "create [-- FLAGS of moired token create]",
		Short:   "Make a token with which a node joins, on the machine of the control plane",
		Example: "  sudo moire token create",
		RunE: func(c *cobra.Command, args []string) error {
			return a.tokenCreate(c.Context(), dir, args)
		},
	}
	create.Flags().StringVar(&dir, "dir", filepath.Join(defaultStateDir, "control"), "directory of moired")
	a.add(token, "", create)
	return token
}

func (a *app) tokenCreate(ctx context.Context, dir string, args []string) error {
	path, err := check.Binary("moired")
	if err != nil {
		return fault.New(fault.Failed, "run this on the machine of the control plane", "%v", err)
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"token", "create", "--dir", dir}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		return fault.Exit(max(exit.ExitCode(), fault.Failed))
	} else if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
