package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher tells when processes end.
type watcher interface {
	// watch calls ended once when the process has ended, unless ctx is done
	// before. It returns an error when there is no such process.
	watch(ctx context.Context, pid int, born uint64, ended func()) error
}

// processes watches by pidfd, one parked goroutine each.
type processes struct{ wg sync.WaitGroup }

func (p *processes) watch(ctx context.Context, pid int, born uint64, ended func()) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// Only now is the number bound to one process: compare its birth.
	if now, err := bornAt(pid); err != nil || now != born {
		return errors.Join(fmt.Errorf("process %d has ended", pid), f.Close())
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	p.wg.Go(func() {
		defer f.Close()
		defer stop()
		err := raw.Read(over)
		if err == nil && ctx.Err() == nil {
			ended()
		}
	})
	return nil
}

// wait returns when all watching has ended.
func (p *processes) wait() { p.wg.Wait() }

// over: the process behind the descriptor has ended.
func over(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		return err == nil && n > 0
	}
}

// bornAt is the start time of a process in clock ticks since boot.
func bornAt(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("there is no process %d: %w", pid, err)
	}
	// The name in parentheses may hold anything; after it, field 22 is the
	// 20th.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// netnsInode says which network namespace is at the path.
func netnsInode(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	if st.Type != unix.NSFS_MAGIC {
		return 0, fmt.Errorf("%s is not a network namespace; give the path of one, such as /run/netns/NAME or /proc/PID/ns/net", path)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}
