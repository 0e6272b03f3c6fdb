package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// job is what a load maker is told to do.
type job struct {
	kind  string // http1, tls, handshake, hold
	addr  string
	conns int
	// active is how many of them have a request at a time, in turn; 0: all.
	active int
	size   int
	// rate of requests per second, sent when they are due (Poisson, the same
	// moments for everybody) whether or not answers came; 0: each connection
	// sends when it has its answer.
	rate       float64
	hosts      int
	paths      int
	mutual     bool
	resume     bool
	dir        string // of certificates
	warm, span time.Duration
	watch      []int // processes of the proxy
	upstream   int
}

// result of one run. CPU is in seconds within the span.
type result struct {
	Requests       int64
	Bytes          int64 // of answers over plain HTTP/1.1, whole or not
	Seconds        float64
	Proxy          float64
	Load           float64
	Upstream       float64
	Machine        float64 // all that ran on any core
	P50, P99, P999 time.Duration
	// Resumed handshakes among Requests.
	Resumed int64
	// Slow is the share of requests whose latency is that of a slow endpoint.
	Slow float64
	// Memory in bytes, of the section on memory.
	Idle, PerConn float64
}

func (r result) perCPU() float64 { return float64(r.Requests) / r.Proxy }

// perGB is the proxy's CPU time for a gigabyte.
func (r result) perGB() float64 { return r.Proxy / float64(r.Bytes) * 1e9 }

// full: core 1 had nothing left.
func (r result) full() bool { return (r.Load+r.Upstream)/r.Seconds > 0.95 }

func (j *job) args() []string {
	return []string{"load", "-kind", j.kind, "-addr", j.addr, "-conns", strconv.Itoa(j.conns), "-active", strconv.Itoa(j.active), "-size", strconv.Itoa(j.size),
		"-rate", fmt.Sprint(j.rate), "-hosts", strconv.Itoa(j.hosts), "-paths", strconv.Itoa(j.paths),
		"-mutual=" + strconv.FormatBool(j.mutual), "-resume=" + strconv.FormatBool(j.resume), "-dir", j.dir,
		"-warm", j.warm.String(), "-span", j.span.String(), "-watch", list(j.watch), "-upstream", strconv.Itoa(j.upstream)}
}

func list(pids []int) string { return strings.Trim(fmt.Sprint(pids), "[]") }

// loadMain is the load maker's side of job.args: it does it and prints the result.
func loadMain(args []string) error {
	var j job
	var watch string
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.StringVar(&j.kind, "kind", "", "http1, tls, handshake or hold")
	f.StringVar(&j.addr, "addr", "", "host:port of the proxy")
	f.IntVar(&j.conns, "conns", 1, "connections")
	f.IntVar(&j.active, "active", 0, "connections that have a request at a time; 0: all")
	f.IntVar(&j.size, "size", 128, "bytes of an answer")
	f.Float64Var(&j.rate, "rate", 0, "requests per second; 0: as many as go")
	f.IntVar(&j.hosts, "hosts", 1, "hosts that requests go to in turn")
	f.IntVar(&j.paths, "paths", 1, "first elements of the path, in turn")
	f.BoolVar(&j.mutual, "mutual", false, "show a certificate")
	f.BoolVar(&j.resume, "resume", false, "resume sessions")
	f.StringVar(&j.dir, "dir", ".", "where the certificates are")
	f.DurationVar(&j.warm, "warm", 0, "time before it counts")
	f.DurationVar(&j.span, "span", time.Second, "time that counts")
	f.StringVar(&watch, "watch", "", "processes of the proxy")
	f.IntVar(&j.upstream, "upstream", 0, "process of the upstream")
	if err := f.Parse(args); err != nil {
		return err
	}
	for s := range strings.FieldsSeq(watch) {
		pid, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		j.watch = append(j.watch, pid)
	}
	do, ok := map[string]func(*job) (result, error){"http1": loadHTTP1, "tls": loadTLS, "handshake": shakeHands, "hold": hold}[j.kind]
	if !ok {
		return fmt.Errorf("-kind %q: http1, tls, handshake or hold", j.kind)
	}
	// What there is to collect is small, and a collection in the middle is noise.
	debug.SetGCPercent(400)
	r, err := do(&j)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// requests are all that the job sends, whole, in turn.
func (j *job) requests() [][]byte {
	var all [][]byte
	for h := range j.hosts {
		all = append(all, j.requestsTo(h)...)
	}
	return all
}

func (j *job) requestsTo(host int) [][]byte {
	var all [][]byte
	for p := range j.paths {
		all = append(all, fmt.Appendf(nil, "GET /p%d/%d HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", p, j.size, hostname(host)))
	}
	return all
}

func hostname(i int) string { return fmt.Sprintf("h%d.bench.test", i) }

// span collects what happens between the end of the warm-up and the end.
type span struct {
	from, to  int64
	latencies []int64
	r         result
	started   bool
	j         *job
}

func newSpan(j *job) *span {
	from := nanos() + int64(j.warm)
	return &span{from: from, to: from + int64(j.span), latencies: make([]int64, 0, 1<<16), j: j}
}

// over reads the processes' CPU when the span begins and when it ends.
func (s *span) over(now int64) bool {
	if !s.started && now >= s.from {
		s.started = true
		s.from = now
		s.r.Proxy, s.r.Load, s.r.Upstream, s.r.Machine = -cpu(s.j.watch...), -cpu(os.Getpid()), -cpu(s.j.upstream), -busy()
	}
	if now < s.to {
		return false
	}
	s.r.Seconds = float64(now-s.from) / 1e9
	s.r.Proxy += cpu(s.j.watch...)
	s.r.Load += cpu(os.Getpid())
	s.r.Upstream += cpu(s.j.upstream)
	s.r.Machine += busy()
	return true
}

// answered counts a request that was due at some time; one that was due before
// the span began counts, but its latency does not.
func (s *span) answered(due, now int64) {
	if !s.started {
		return
	}
	s.r.Requests++
	if due >= s.from {
		s.latencies = append(s.latencies, now-due)
	}
}

func (s *span) result() result {
	slices.Sort(s.latencies)
	at := func(q float64) time.Duration {
		if len(s.latencies) == 0 {
			return 0
		}
		return time.Duration(s.latencies[int(q*float64(len(s.latencies)-1))])
	}
	s.r.P50, s.r.P99, s.r.P999 = at(0.50), at(0.99), at(0.999)
	const slow = int64(slowAnswer) * 9 / 10
	if n := len(s.latencies); n > 0 {
		at, _ := slices.BinarySearch(s.latencies, slow)
		s.r.Slow = float64(n-at) / float64(n)
	}
	return s.r
}
