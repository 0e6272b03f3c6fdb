package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld: another process runs this lab.
var ErrHeld = errors.New("it runs already")

// holderFile names the process that runs the lab.
const holderFile = "holder"

// Hold makes this process the one that runs the lab, until release is called
// or the process ends, however it ends. Its error is ErrHeld, with the id of
// the other process, when another one does.
func (l *Lab) Hold() (release func(), err error) {
	for range 10 {
		if err := os.MkdirAll(l.Dir, 0o755); err != nil {
			return nil, err
		}
		dir, err := os.Open(l.Dir)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			dir.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", l.Dir, err)
			}
			if pid := l.holder(); pid != 0 {
				return nil, fmt.Errorf("%w, as process %d", ErrHeld, pid)
			}
			return nil, ErrHeld // it has only just begun
		}
		// The one before us may have removed the directory meanwhile.
		if same(dir, l.Dir) {
			return func() { dir.Close() }, os.WriteFile(filepath.Join(l.Dir, holderFile), []byte(pidRecord(os.Getpid())), 0o644)
		}
		dir.Close()
	}
	return nil, fmt.Errorf("%s comes and goes; try again", l.Dir)
}

func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// holder is the id of the process that runs the lab; 0: nobody knows.
func (l *Lab) holder() int {
	b, err := os.ReadFile(filepath.Join(l.Dir, holderFile))
	if err != nil {
		return 0
	}
	id, _, _ := strings.Cut(string(b), " ")
	pid, err := strconv.Atoi(id)
	if err != nil || pid <= 1 || pidRecord(pid) != string(b) {
		return 0
	}
	return pid
}

// EndHolder asks the process that runs the lab, if there is one, to end, and
// waits until it has, at most a minute.
func (l *Lab) EndHolder(ctx context.Context) error {
	asked := false
	for range 600 {
		if _, err := os.Stat(l.Dir); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		release, err := l.Hold()
		if err == nil {
			release()
			return nil
		}
		if !errors.Is(err, ErrHeld) {
			return err
		}
		if pid := l.holder(); pid != 0 && !asked {
			asked = true
			l.Progress(fmt.Sprintf("ending process %d, which runs it", pid))
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("end process %d: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("process %d runs it and does not end; end it yourself and try again", l.holder())
}

// Left says whether somebody who was killed left a lab behind.
func (l *Lab) Left() bool {
	left, err := filepath.Glob(filepath.Join(l.Dir, "*.pid"))
	if err == nil && len(left) > 0 {
		return true
	}
	things := []string{filepath.Join("/sys/class/net", l.Name)}
	for _, n := range l.Nodes {
		things = append(things, n.Netns)
	}
	return slices.ContainsFunc(things, func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	})
}
