package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of the pause before a child is started again, and how long one must
// live for the pause to be short again.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 10 * time.Second
	healthy    = 30 * time.Second
)

// Child is one program to keep running.
type Child struct {
	Name string
	Path string
	Args []string
	// Log receives what it prints.
	Log io.Writer
	// Tell receives what people should know, such as that it died.
	Tell func(text string)
	// Notes, when not nil, remembers the process on disk.
	Notes *Notes
	// Grace is how long it may take to end before it is killed.
	Grace time.Duration

	mu   sync.Mutex
	last error
}

// Run starts the child and starts it again whenever it ends, until ctx is
// done; then it asks it to end, waits, and returns. It returns an error only
// when the program cannot be started at all.
func (c *Child) Run(ctx context.Context) error {
	pause := firstPause
	for started := 0; ; started++ {
		began := time.Now()
		err := c.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		var exit *exec.ExitError
		if started == 0 && !errors.As(err, &exit) && time.Since(began) < healthy && errors.Is(err, errStart) {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		c.mu.Lock()
		c.last = err
		c.mu.Unlock()
		if time.Since(began) > healthy {
			pause = firstPause
		}
		c.Tell(fmt.Sprintf("%s ended (%v); starting it again in %s", c.Name, err, pause))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(pause*2, lastPause)
	}
}

var errStart = errors.New("cannot be started")

// once runs the child until it ends or ctx is done.
func (c *Child) once(ctx context.Context) error {
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Stdout, cmd.Stderr = c.Log, c.Log
	// A group of its own, so that Ctrl-C reaches only moire, which ends its
	// children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: %w", errStart, err)
	}
	if c.Notes != nil {
		if err := c.Notes.Add(c.Name, cmd.Process.Pid); err != nil {
			c.Tell(fmt.Sprintf("%s: %v", c.Name, err))
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.Tell(fmt.Sprintf("%s: %v", c.Name, err))
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(c.Grace):
		c.Tell(fmt.Sprintf("%s did not end within %s and is killed", c.Name, c.Grace))
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return <-ended
	}
}

// Last is how it ended the last time, nil when it never did.
func (c *Child) Last() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Tail is the last lines of a log file, for error messages.
func Tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 1<<16 {
		if _, err := f.Seek(-1<<16, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
