package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"moire.dev/moire/datapath"
	"moire.dev/moire/ipam"
	"moire.dev/moire/node/local"
	"moire.dev/moire/node/proxies"
)

// Check says what the kernel lacks for an agent, and what to do about it.
func Check() []datapath.Check { return datapath.Probe() }

// Dump writes everything that the running agent knows and has in the kernel.
func Dump(ctx context.Context, c Config, w io.Writer) error {
	c, err := c.named()
	if err != nil {
		return err
	}
	return local.NewClient(c.socket()).Dump(ctx, w)
}

// Consent accepts a risk that the running agent does not take by itself.
func Consent(ctx context.Context, c Config, in local.Consent) error {
	c, err := c.named()
	if err != nil {
		return err
	}
	return local.NewClient(c.socket()).Consent(ctx, in)
}

// Cleanup removes everything of the node from the kernel and the run
// directory; with purge also its state. It refuses while the agent runs.
func Cleanup(c Config, purge bool) error {
	c, err := c.named()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("cleanup changes the kernel and needs root; run it with sudo")
	}
	if _, err := os.Stat(c.Dir); err == nil {
		if err := c.forget(purge); err != nil {
			return err
		}
	}
	cgroup, err := c.proxyCgroup()
	if err == nil {
		err = proxies.Clean(c.proxyDir(), cgroup)
	}
	err = errors.Join(err, datapath.Cleanup(c.RunDir, c.Name), c.removeGateways())
	os.Remove(c.toldPath())
	os.Remove(c.workloadSocket())
	if rm := os.Remove(c.socket()); rm != nil && !errors.Is(rm, os.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	// Only if nothing of others is in it.
	os.Remove(filepath.Join(c.RunDir, "netns"))
	os.Remove(filepath.Dir(c.workloadSocket()))
	if purge {
		err = errors.Join(err, os.RemoveAll(c.Dir))
	}
	return err
}

// forget removes the namespaces of commands that were killed and, unless all
// state goes anyway, what the attachments held. Holding the pool shows that no
// agent runs.
func (c *Config) forget(purge bool) error {
	memory, err := ipam.OpenPool(filepath.Join(c.Dir, "pool"))
	if err != nil && !(purge && errors.Is(err, ipam.ErrDamaged)) {
		return fmt.Errorf("is the agent of node %s still running? %w", c.Name, err)
	}
	if memory != nil {
		defer memory.Close()
	}
	d, err := openDisk(c.Dir)
	if err != nil {
		return err
	}
	all, err := d.load()
	if err != nil && !purge {
		return err
	}
	var errs []error
	for _, a := range all {
		errs = append(errs, c.removeResolv(a))
		if a.PID != 0 {
			errs = append(errs, removeNetnsFile(c.netnsFile(a.Key.Project, a.Key.Workload)))
		}
		if !purge {
			errs = append(errs, d.remove(a.Key), memory.Release(a.Key))
		}
	}
	return errors.Join(errs...)
}
