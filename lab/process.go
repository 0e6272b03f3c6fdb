package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a child whose output goes to a file and whose id is remembered on
// disk, so that somebody else can end it after a crash.
type Process struct {
	Name string
	Log  string
	cmd  *exec.Cmd
	pid  string // file
	done chan struct{}
	err  error
}

// Start runs a program as part of the lab, inside the namespace at the path
// netns (empty: where we are); Down ends it, also after a crash of ours.
func (l *Lab) Start(name, netns, bin string, args ...string) (*Process, error) {
	return start(l.Dir, name, netns, bin, args...)
}

// start runs bin inside the namespace (empty: where we are).
func start(dir, name, netns, bin string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(dir, name+".log"), pid: filepath.Join(dir, name+".pid"), done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(bin, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run := p.cmd.Start
	if netns != "" {
		run = func() error { return InNetns(netns, p.cmd.Start) }
	}
	if err := run(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, os.WriteFile(p.pid, []byte(pidRecord(p.cmd.Process.Pid)), 0o644)
}

// Kill ends the process at once, as a crash would.
func (p *Process) Kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	return err
}

// Stop asks the process to end and kills it after the grace time.
func (p *Process) Stop(grace time.Duration) {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.cmd.Process.Kill()
		<-p.done
	}
	os.Remove(p.pid)
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Tail returns the last lines of the log, for an error message.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

// pidRecord names a process for ever: its id and when it started.
func pidRecord(pid int) string { return fmt.Sprintf("%d %s", pid, startTime(pid)) }

func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// Field 22, counted after the command name, which may hold spaces.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return ""
	}
	return f[19]
}

// endRemembered ends the processes that the pid files in dir name, if they are
// still the same ones.
func endRemembered(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.pid"))
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		id, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		pid, err := strconv.Atoi(id)
		if err == nil && pid > 1 && pidRecord(pid) == strings.TrimSpace(string(b)) {
			if err := end(ctx, pid); err != nil {
				return err
			}
		}
		os.Remove(f)
	}
	return nil
}

// gone: a process that has ended counts as gone before its parent has asked how.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	state := strings.TrimSpace(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

// end asks, waits 5 seconds, then kills.
func end(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); errors.Is(err, syscall.ESRCH) {
		return nil
	}
	for range 50 {
		if gone(pid) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
