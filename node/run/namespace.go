package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace and the one thread that is in it. The
// command is a child of that thread, so the thread lives as long as it does.
type namespace struct {
	file string // where it is shown
	fd   *os.File
	work chan func()
	// settled: the goroutine has its thread. done: both have ended.
	settled, done chan struct{}
}

// newNamespace makes an empty namespace. file is where show will show it.
func newNamespace(file string) (*namespace, error) {
	n := &namespace{file: file, work: make(chan func()), settled: make(chan struct{}), done: make(chan struct{})}
	made := make(chan error, 1)
	go n.thread(made)
	if err := <-made; err != nil {
		<-n.done
		return nil, err
	}
	return n, nil
}

// thread is never unlocked: the thread ends with the goroutine, and nothing
// else ever runs in the namespace by accident.
func (n *namespace) thread(made chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The first thread stands for the whole process in /proc and never
		// ends; while we hold it, another goroutine gets another one.
		defer runtime.UnlockOSThread()
		go n.thread(made)
		<-n.settled
		return
	}
	defer close(n.done)
	close(n.settled)
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err != nil {
		made <- fmt.Errorf("make a network namespace: %w; 'moire run' needs root, run it with sudo", err)
		return
	}
	if n.fd, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())); err == nil {
		err = loopbackUp()
	}
	if err != nil && n.fd != nil {
		n.fd.Close()
	}
	if made <- err; err != nil {
		return
	}
	for f := range n.work {
		f()
	}
}

// do runs f on the thread.
func (n *namespace) do(f func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); f() }
	<-done
}

// agentPath is where the agent finds the namespace, whatever mounts it sees.
func (n *namespace) agentPath() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.fd.Fd())
}

// show mounts the namespace at its file, so that people can enter it. The
// command runs without that too.
func (n *namespace) show(warn func(error)) {
	err := os.MkdirAll(filepath.Dir(n.file), 0o755)
	if err == nil {
		err = os.WriteFile(n.file, nil, 0o444)
	}
	if err == nil {
		err = unix.Mount(n.agentPath(), n.file, "", unix.MS_BIND, "")
	}
	if err != nil {
		warn(fmt.Errorf("the namespace cannot be entered at %s: %w", n.file, err))
	}
}

// close removes what show has made and ends the thread.
func (n *namespace) close() error {
	close(n.work)
	<-n.done
	err := unix.Unmount(n.file, unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if rm := os.Remove(n.file); !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return errors.Join(err, n.fd.Close())
}

// loopbackUp brings lo up in the namespace of the calling thread.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}
