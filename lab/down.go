package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unwire removes the kernel state of the agents, the namespaces, the underlay
// and the run directory.
func (l *Lab) unwire(ctx context.Context) []error {
	var errs []error
	for _, n := range l.Nodes {
		errs = append(errs, l.cleanup(ctx, n))
		errs = append(errs, removeNetns(filepath.Base(n.Netns)))
	}
	errs = append(errs, underlay{bridge: l.Name}.down())
	errs = append(errs, unmountUnder(l.RunDir))
	errs = append(errs, os.RemoveAll(l.RunDir))
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
