package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Cores: proxies have one to themselves.
const (
	coreProxy = "0"
	coreLoad  = "1"
)

// ticks of /proc/<pid>/stat in a second (USER_HZ, the same on every machine).
const ticks = 100

// cpu is the time in seconds that processes have run so far, all threads, user
// and system.
func cpu(pids ...int) float64 {
	var sum float64
	for _, pid := range pids {
		if fields := stat(pid); len(fields) > 12 {
			user, _ := strconv.ParseFloat(fields[11], 64)
			system, _ := strconv.ParseFloat(fields[12], 64)
			sum += (user + system) / ticks
		}
	}
	return sum
}

// busy is the time in seconds that the cores of the machine have not been idle.
func busy() float64 {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	var sum float64
	for i, f := range strings.Fields(line) {
		// The first is a name; then user, nice, system, idle, iowait, irq, softirq.
		if v, err := strconv.ParseFloat(f, 64); err == nil && i != 4 && i != 5 && i < 8 {
			sum += v / ticks
		}
	}
	return sum
}

// stat is /proc/<pid>/stat from the third field, the state, on.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// family is a process and its children.
func family(pid int) []int {
	all := []int{pid}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			continue
		}
		if fields := stat(child); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			all = append(all, child)
		}
	}
	return all
}

// resident is the memory of all processes together in bytes; what they share
// counts once.
func resident(pids []int) float64 {
	var sum float64
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if _, rest, ok := strings.Cut(string(b), "\nPss:"); ok {
			sum += 1024 * float64(number([]byte(strings.TrimSpace(rest))))
		}
	}
	return sum
}

// process is one that we started.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// start runs a command on a core; what it says goes to a log file in dir.
func start(ctx context.Context, core, dir, name string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, "log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.CommandContext(ctx, "taskset", append([]string{"-c", core}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = out, out, dir
	// Asked to end, not killed: only so nginx takes its workers along.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 2 * time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait()
	}()
	return p, nil
}

// listening waits until all ports take connections.
func (p *process) listening(ctx context.Context, ports ...int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, port := range ports {
		for {
			c, err := net.Dial("tcp", address(port))
			if err == nil {
				c.Close()
				break
			}
			select {
			case <-p.done:
				return fmt.Errorf("%s ended: %s", p.name, p.said())
			case <-ctx.Done():
				return fmt.Errorf("%s does not listen on %d: %s", p.name, port, p.said())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	// Who listens there may be somebody else.
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %s", p.name, p.said())
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}

// said is the end of its log.
func (p *process) said() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-600):]))
}

// stop ends it and its children.
func (p *process) stop() {
	all := family(p.cmd.Process.Pid)
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(300 * time.Millisecond):
	}
	select {
	case <-p.done:
	default:
		for _, pid := range all {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		<-p.done
	}
}

// load runs a load maker on its core until it is done.
func load(ctx context.Context, j *job) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, j.warm+j.span+30*time.Second)
	defer cancel()
	var r result
	out, err := loader(ctx, j.args()...).Output()
	if err != nil {
		return r, failed(err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, err
	}
	if r.Requests == 0 && r.Bytes == 0 || len(j.watch) > 0 && r.Proxy == 0 {
		return r, errors.New("nothing happened")
	}
	return r, nil
}

func loader(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "taskset", append([]string{"-c", coreLoad, self()}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

func failed(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return errors.New(strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}

// holding makes connections and keeps them until it is told to release them.
func holding(ctx context.Context, j *job) (release func(), err error) {
	c := loader(ctx, j.args()...)
	var errs strings.Builder
	c.Stderr = &errs
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	release = func() {
		in.Close()
		io.Copy(io.Discard, out)
		c.Wait()
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		release()
		return nil, errors.New(errs.String())
	}
	return release, nil
}

func self() string {
	exe, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return exe
}
