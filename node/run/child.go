package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that go on to the command.
var forwarded = []os.Signal{
	unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT,
}

// grace is how long the command may take to end after ctx did.
const grace = 10 * time.Second

// run starts the command in the namespace and waits for its end. resolv, when
// not empty, is what it finds in /etc/resolv.conf.
func (n *namespace) run(ctx context.Context, c Config, path, resolv string) (code int, err error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	tty := terminal(c)
	if tty != nil {
		// To take the terminal back from the background must not stop us.
		signal.Ignore(unix.SIGTTOU)
		defer signal.Reset(unix.SIGTTOU)
	}
	cmd := &exec.Cmd{
		Path: path, Args: c.Command, Dir: c.Dir, Env: c.Env,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
		// A group of its own, so that a signal from the terminal comes once;
		// and it dies when the thread that started it does.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL},
	}
	if tty != nil {
		cmd.SysProcAttr.Foreground, cmd.SysProcAttr.Ctty = true, int(tty.Fd())
	}
	n.do(func() {
		if resolv != "" {
			if err := showResolv(resolv); err != nil {
				c.Warn(fmt.Errorf("the command resolves names as this machine does, not as the Network: %w", err))
			}
		}
		err = cmd.Start()
	})
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return CodeNotFound, fmt.Errorf("start %s: %w", path, err)
		}
		return CodeNotExecutable, fmt.Errorf("start %s: %w", path, err)
	}
	ch := &child{pid: cmd.Process.Pid, tty: tty}
	if tty != nil {
		defer ch.foreground(unix.Getpgrp())
	}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { ch.forward(ctx, signals, ended) })
	code, err = ch.wait()
	close(ended)
	wg.Wait()
	cmd.Process.Release()
	return code, err
}

// child is the running command.
type child struct {
	pid int
	tty *os.File // nil: it has no terminal of ours
}

// forward passes signals on until the command has ended.
func (c *child) forward(ctx context.Context, signals <-chan os.Signal, ended <-chan struct{}) {
	stop := ctx.Done()
	var kill <-chan time.Time
	for {
		select {
		case <-ended:
			return
		case s := <-signals:
			unix.Kill(c.pid, s.(syscall.Signal))
		case <-stop:
			stop = nil
			unix.Kill(c.pid, unix.SIGTERM)
			kill = time.After(grace)
		case <-kill:
			unix.Kill(c.pid, unix.SIGKILL)
		}
	}
}

// wait returns the exit code. When the command is stopped at the terminal we
// stop too, so that the shell notices; when we go on, so does it.
func (c *child) wait() (int, error) {
	options := 0
	if c.tty != nil {
		options = unix.WUNTRACED
	}
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(c.pid, &status, options, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for the command: %w", err)
		case status.Exited():
			return status.ExitStatus(), nil
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		case status.Stopped():
			c.foreground(unix.Getpgrp())
			unix.Kill(unix.Getpid(), unix.SIGSTOP)
			c.foreground(c.pid)
			unix.Kill(-c.pid, unix.SIGCONT)
		}
	}
}

// foreground gives the terminal to a process group.
func (c *child) foreground(group int) {
	if c.tty != nil {
		_ = unix.IoctlSetPointerInt(int(c.tty.Fd()), unix.TIOCSPGRP, group) // without it the group just waits
	}
}

// terminal is the one of our streams that is a terminal which we have in our
// hands; nil if there is none.
func terminal(c Config) *os.File {
	for _, f := range []*os.File{c.Stdin, c.Stdout, c.Stderr} {
		if group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP); err == nil && group == unix.Getpgrp() {
			return f
		}
	}
	return nil
}
