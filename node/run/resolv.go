package run

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const resolvConf = "/etc/resolv.conf"

// showResolv makes the calling thread, and what it starts, see another
// /etc/resolv.conf than the rest of the machine: in a mount namespace of its
// own, into which later mounts of the machine still come, but out of which
// none goes. The thread must be locked, and is good for nothing else afterwards.
func showResolv(text string) error {
	f, err := os.CreateTemp("", "moire-resolv-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // the mount keeps it
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts apart: %w", err)
	}
	if err := unix.Mount(f.Name(), resolvConf, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show another %s: %w", resolvConf, err)
	}
	return nil
}
