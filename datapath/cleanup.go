package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Cleanup removes everything of the node: interfaces first, so that nothing is
// ever open without its program, then links, tables and their directories. The
// BPF file system goes with the last node. It must run in the namespace of the
// node.
func Cleanup(runDir, node string) error {
	if !nodeName.MatchString(node) {
		return fmt.Errorf("clean up: %q is not a node name", node)
	}
	hosts, err := listed(func(l netlink.Link) bool {
		return strings.HasPrefix(l.Attrs().Alias, aliasMark+node+":") || unmarked(l)
	})
	if err != nil {
		return fmt.Errorf("clean up node %s: %w", node, err)
	}
	var errs []error
	for _, h := range hosts {
		errs = append(errs, Unplug(h))
	}
	throttles, err := listed(func(l netlink.Link) bool { return l.Attrs().Alias == throttleMark+node })
	errs = append(errs, err)
	for _, t := range throttles {
		errs = append(errs, removeLink(t))
	}
	errs = append(errs, removePresence(runDir, node), leaveNamespaces(filepath.Join(runDir, "bpf", node)))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up node %s: %w", node, err)
	}
	if err := returnLoopback(filepath.Join(runDir, "bpf", node)); err != nil {
		return fmt.Errorf("clean up node %s: %w", node, err)
	}
	if err := removeExternals(); err != nil {
		return fmt.Errorf("clean up node %s: %w", node, err)
	}
	if err := cleanFirewall(node); err != nil {
		return fmt.Errorf("clean up node %s: %w", node, err)
	}
	root := filepath.Join(runDir, "bpf")
	if err := os.RemoveAll(filepath.Join(root, node)); err != nil {
		return fmt.Errorf("clean up node %s: %w", node, err)
	}
	left, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean up node %s: %w", node, err)
	}
	for _, e := range left {
		if e.IsDir() { // another node; the kernel itself only puts files here
			return nil
		}
	}
	if err := unix.Unmount(root, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("clean up node %s: unmount %s: %w", node, root, err)
	}
	if err := os.Remove(root); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clean up node %s: %w", node, err)
	}
	return nil
}
