package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"moire.dev/moire/proxy/judge/attack"
)

// slowhttp runs slowhttptest in its four modes; an honest client and the tool's
// own must both be served meanwhile.
func slowhttp(ctx context.Context, h *hall) ([]verdict, error) {
	origin, err := h.Origin(ctx, onOthers)
	if err != nil {
		return nil, err
	}
	c, plain, _ := h.plain(origin)
	p, err := h.Proxy(ctx, h.kind, c, onProxy)
	if err != nil {
		return nil, err
	}
	v := verdict{judge: "slowhttptest"}
	for _, mode := range []struct {
		name  string
		flags []string
	}{
		{"slowloris", []string{"-H", "-u", "http://" + plain + "/"}},
		{"slow body", []string{"-B", "-s", "8192", "-u", "http://" + plain + "/"}},
		{"range", []string{"-R", "-a", "10", "-b", "3000", "-u", "http://" + plain + "/bytes/100000"}},
		{"slow read", []string{"-X", "-w", "1", "-y", "2", "-n", "5", "-z", "32", "-k", "3", "-u", "http://" + plain + "/bytes/1000000"}},
	} {
		report := filepath.Join(h.Dir, strings.ReplaceAll(mode.name, " ", "-"))
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		args := append([]string{"-c", "2000", "-r", "500", "-i", "5", "-l", "25", "-x", "24", "-p", "3", "-g", "-o", report}, mode.flags...)
		cmd := exec.CommandContext(bounded, "slowhttptest", args...)
		var honest attack.Sample
		var wg sync.WaitGroup
		var honestErr error
		wg.Go(func() { honest, honestErr = h.honest(ctx, plain, 20*time.Second) })
		out, err := cmd.CombinedOutput()
		cancel()
		wg.Wait()
		if err != nil {
			return nil, fmt.Errorf("slowhttptest: %w\n%s", err, out[max(0, len(out)-500):])
		}
		if honestErr != nil {
			return nil, honestErr
		}
		unserved := ""
		if honest.Answered < honest.Asked {
			unserved = fmt.Sprintf("%d of %d answered: %s", honest.Answered, honest.Asked, honest.Error)
		}
		v.say(mode.name+": honest client", unserved)
		v.say(mode.name+": its own probe", probed(report+".csv"))
		v.notes = append(v.notes, fmt.Sprintf("%s: honest p99 %s; %s", mode.name, short(honest.P99), lastLine(report+".csv")))
		v.say(mode.name+": proxy lives", goneSays(p.Gone()))
	}
	return []verdict{v}, nil
}

// probed reads whether slowhttptest's own probe was always served. Its columns:
// seconds, closed, pending, connected, available.
func probed(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	away := 0
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.Split(line, ",")
		if i > 0 && len(f) > 4 && strings.TrimSpace(f[4]) == "0" {
			away++
		}
	}
	if away > 0 {
		return fmt.Sprintf("not served in %d seconds", away)
	}
	return ""
}

func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[0] + ": " + lines[len(lines)-1]
}
