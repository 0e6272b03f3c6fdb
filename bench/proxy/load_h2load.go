package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// streams at a time of one HTTP/2 connection.
const streams = 100

var h2loadSays = regexp.MustCompile(`requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed`)

// h2load runs nghttp2's load maker for HTTP/2 with n requests; grpc: unary calls
// of 128 bytes. It says nothing of when its span begins, so CPU and requests are
// those of the whole run. A number, and no time, ends it, so that the last
// requests are not broken off, which proxies pay for long after.
func h2load(ctx context.Context, j *job, n int, secure, grpc bool) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, j.span+30*time.Second)
	defer cancel()
	var r result
	args := []string{"-c", coreLoad, "h2load", "-c", strconv.Itoa(j.conns), "-m", strconv.Itoa(streams), "-n", strconv.Itoa(n),
		"-H", ":authority: " + hostname(0)}
	if grpc {
		message := filepath.Join(j.dir, "message")
		if err := os.WriteFile(message, grpcBody, 0o600); err != nil {
			return r, err
		}
		args = append(args, "-d", message, "-H", "content-type: application/grpc", "-H", "te: trailers")
	}
	scheme := "http"
	if secure {
		scheme = "https"
	}
	for p := range j.paths {
		last := strconv.Itoa(j.size)
		if grpc {
			last = "Unary"
		}
		args = append(args, fmt.Sprintf("%s://%s/p%d/%s", scheme, j.addr, p, last))
	}
	c := exec.CommandContext(ctx, "taskset", args...)
	began := time.Now()
	r.Proxy, r.Upstream = -cpu(j.watch...), -cpu(j.upstream)
	out, err := c.Output()
	r.Seconds = time.Since(began).Seconds()
	r.Proxy += cpu(j.watch...)
	r.Upstream += cpu(j.upstream)
	if err != nil {
		return r, fmt.Errorf("h2load: %w", failed(err))
	}
	r.Load = (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
	found := h2loadSays.FindStringSubmatch(string(out))
	if found == nil {
		return r, fmt.Errorf("h2load said %q", out)
	}
	done, good, bad := number([]byte(found[1])), number([]byte(found[2])), number([]byte(found[3]))
	if good == 0 || bad > 0 || good < done || r.Proxy == 0 {
		at := strings.Index(string(out), "requests:")
		return r, fmt.Errorf("h2load: %.200s", strings.Join(strings.Fields(string(out[at:])), " "))
	}
	r.Requests = int64(good)
	return r, nil
}
