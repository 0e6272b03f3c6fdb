package datapath

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

var errNoNamespace = errors.New("is a plain file, not a network namespace")

// namespace is an open network namespace.
type namespace struct {
	file *os.File
	dev  uint64
	ino  uint64
}

// openNamespace opens a bind-mounted file or /proc/<pid>/ns/net.
func openNamespace(path string) (*namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil {
		err = unix.Fstatfs(int(f.Fd()), &fs)
	}
	if err == nil && fs.Type != unix.NSFS_MAGIC {
		err = fmt.Errorf("%s %w", path, errNoNamespace)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &namespace{file: f, dev: uint64(st.Dev), ino: st.Ino}, nil
}

func currentNamespace() (*namespace, error) { return openNamespace("/proc/thread-self/ns/net") }

func (n *namespace) close() error { return n.file.Close() }

func (n *namespace) same(o *namespace) bool { return n.dev == o.dev && n.ino == o.ino }

// do runs f on a thread that is inside the namespace. When the thread is there
// already, that costs two system calls. When the way back fails, the thread
// ends with the goroutine: nobody else ever gets it.
func (n *namespace) do(f func() error) error {
	var st unix.Stat_t
	runtime.LockOSThread()
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err == nil && uint64(st.Dev) == n.dev && st.Ino == n.ino {
		defer runtime.UnlockOSThread()
		return f()
	}
	runtime.UnlockOSThread()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := currentNamespace()
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		defer home.close()
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err = f()
		if unix.Setns(int(home.file.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}
