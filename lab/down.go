package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unwire removes the kernel state of the agents, the namespaces, the underlay
// and the run directory.
func (l *Lab) unwire(ctx context.Context) []error {
	var errs []error
	var ports []string
	for _, n := range l.Nodes {
		errs = append(errs, l.cleanup(ctx, n))
		errs = append(errs, removeNetns(filepath.Base(n.Netns)))
		ports = append(ports, n.port)
	}
	errs = append(errs, underlay{bridge: l.Name}.down(ports...))
	if l.shared() {
		return append(errs, l.removeOwn()...)
	}
	errs = append(errs, unmountUnder(l.RunDir))
	errs = append(errs, os.RemoveAll(l.RunDir))
	return errs
}

// shared: a node that is none of ours has its pins in the run directory, such
// as that of a `moire up` that was stopped and goes on later.
func (l *Lab) shared() bool {
	pins, err := os.ReadDir(filepath.Join(l.RunDir, "bpf"))
	return err == nil && slices.ContainsFunc(pins, func(e os.DirEntry) bool {
		return e.IsDir() && !slices.ContainsFunc(l.Nodes, func(n *Node) bool { return n.Name == e.Name() })
	})
}

// removeOwn removes what is ours in a run directory that is not only ours.
func (l *Lab) removeOwn() []error {
	own := []string{"kubeconfig", "join.json"}
	for _, n := range l.Nodes {
		own = append(own, n.Name+".sock", filepath.Join("bpf", n.Name))
	}
	var errs []error
	for _, name := range own {
		errs = append(errs, os.RemoveAll(filepath.Join(l.RunDir, name)))
	}
	return errs
}

// cleanup lets the agent's own binary take back what the agent made.
func (l *Lab) cleanup(ctx context.Context, n *Node) error {
	if _, err := os.Stat(n.Netns); err != nil {
		return nil // the namespace is gone, and with it everything in it
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(l.Bin, "moire-node"), "cleanup", "--purge",
		"--name", n.Name, "--dir", filepath.Join(l.Dir, "node", n.Name), "--run-dir", l.RunDir)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := InNetns(n.Netns, cmd.Start); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("clean up node %s: %w: %s", n.Name, err, out.String())
	}
	return nil
}

// unmountUnder unmounts everything below dir (a bpffs, namespaces of
// workloads), the deepest first.
func unmountUnder(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	var points []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return nil
}
