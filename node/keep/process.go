package keep

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one that runs, or did.
type process struct {
	pid   int
	file  *os.File // pidfd
	since time.Time
	// served: it has served at least once.
	served bool
	asked  time.Time // when it was asked to end; zero: it was not
	ended  chan struct{}
	why    error         // valid when ended is closed
	let    chan struct{} // closed when nobody watches it any more
}

// adopt takes up a process that an earlier agent started.
func adopt(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return watch(pid, fd, bornAt(pid), func() error { return nil }), nil
}

// watch notes when a process ends, whoever started it.
func watch(pid, fd int, since time.Time, wait func() error) *process {
	p := &process{pid: pid, file: os.NewFile(uintptr(fd), "pidfd"), since: since, ended: make(chan struct{}), let: make(chan struct{})}
	go func() {
		defer close(p.let)
		raw, err := p.file.SyscallConn()
		if err != nil || raw.Read(over) != nil {
			return // let go
		}
		p.why = wait()
		close(p.ended)
	}()
	return p
}

// over: the process behind the descriptor has ended.
func over(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// leave ends the watching; the process goes on.
func (p *process) leave() {
	p.file.Close()
	<-p.let
}

// bornAt is when a process was started.
func bornAt(pid int) time.Time {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return time.Time{}
	}
	// The name in parentheses may hold anything; after it, field 22 is the 20th.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return time.Time{}
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	var up unix.Sysinfo_t
	if err != nil || unix.Sysinfo(&up) != nil {
		return time.Time{}
	}
	const ticksPerSecond = 100 // of /proc, on every architecture
	boot := time.Now().Add(-time.Duration(up.Uptime) * time.Second)
	return boot.Add(time.Duration(ticks) * time.Second / ticksPerSecond)
}

// start begins the program, in its cgroup from its first moment on.
func (o *Options) start() (*process, error) {
	if err := os.MkdirAll(o.Cgroup, 0o755); err != nil {
		return nil, fmt.Errorf("the cgroup of %s: %w", o.Name, err)
	}
	group, err := os.Open(o.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("the cgroup of %s: %w", o.Name, err)
	}
	defer group.Close()
	log, err := openLog(o.Log)
	if err != nil {
		return nil, fmt.Errorf("the log of %s: %w", o.Name, err)
	}
	defer log.Close()
	var fd int
	cmd := exec.Command(o.Path, o.Args...)
	// It writes to a file and has a session of its own: it must not end with us.
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd()), PidFD: &fd}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return watch(cmd.Process.Pid, fd, time.Now(), cmd.Wait), nil
}

// maxLog is when a log is put aside, at the next start.
const maxLog = 1 << 20

func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// dead says whether it has ended.
func (p *process) dead() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// ask sends a signal; who has ended hears nothing.
func (p *process) ask(sig unix.Signal) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	control := raw.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if err = errors.Join(control, err); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d: %w", p.pid, err)
	}
	return nil
}

// runs says whether the process runs what is in the file now. When that cannot
// be known it does.
func (p *process) runs(path string) bool {
	var it, now unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(p.pid)+"/exe", &it) != nil || unix.Stat(path, &now) != nil {
		return true
	}
	return it.Dev == now.Dev && it.Ino == now.Ino
}

// lastLine of a log, for people.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 4096 {
		if _, err := f.Seek(-4096, io.SeekEnd); err != nil {
			return fmt.Sprint(err)
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}
