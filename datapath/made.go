package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MakeNetns makes an empty network namespace and shows it at a path, which nothing
// else uses; one that is shown there stays as it is. Whoever dies on the way leaves
// a plain file, which is no hindrance.
func MakeNetns(path string) error {
	n, err := openNamespace(path)
	if err == nil {
		return n.close()
	}
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errNoNamespace) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	if n, err = newNamespace(); err != nil {
		return err
	}
	defer n.close()
	if err := n.do(func() error { return setUp("lo", true) }); err != nil {
		return fmt.Errorf("set lo up in a new network namespace: %w", err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", n.file.Fd()), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show a network namespace at %s: %w", path, err)
	}
	return nil
}

// RemoveNetns removes what MakeNetns made. What is gone already is no error.
func RemoveNetns(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
