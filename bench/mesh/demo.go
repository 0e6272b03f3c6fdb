package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// routed marks the first line of the demo about a request that a route took.
const routed = "<- a route to two versions"

// demo is P12: from built binaries to the first request that was routed, on all
// cores.
func (b *bench) demo(ctx context.Context) error {
	fmt.Printf("\n### From built binaries to the first routed request of `moire demo`\n\n")
	var all []float64
	for range b.rounds {
		took, err := b.demoOnce(ctx)
		if err != nil {
			return fmt.Errorf("moire demo: %w", err)
		}
		fmt.Fprintf(os.Stderr, "demo: %.1f s\n", took)
		all = append(all, took)
	}
	m := median(all)
	head("median", "least", "most", "wanted (P12)", "reached")
	row(fmt.Sprintf("%.1f s", m), fmt.Sprintf("%.1f s", all[0]), fmt.Sprintf("%.1f s", all[len(all)-1]), "30 s", yes(m <= 30))
	return nil
}

func (b *bench) demoOnce(ctx context.Context) (seconds float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	// We are on one core; it must not be.
	cmd := exec.CommandContext(ctx, "taskset", "-c", "0,1", filepath.Join(b.bin, "moire"), "demo")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = errors.New("it ended before it routed a request")
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if line := lines.Text(); strings.Contains(line, routed) && seconds == 0 {
			seconds, err = time.Since(began).Seconds(), nil
			if !strings.Contains(line, "ALLOWED") {
				err = fmt.Errorf("the demo says %q", line)
			}
			cmd.Process.Signal(syscall.SIGTERM) // it removes every trace
		}
	}
	if e := cmd.Wait(); err == nil && e != nil {
		err = e
	}
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, errs.String())
	}
	return seconds, nil
}
