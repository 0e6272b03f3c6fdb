package lab

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is continuous work on a Service in the mesh of which nothing may fail:
// requests on kept connections and on new ones, answers that take long, and
// requests that a rule denies. Nothing is asked a second time.
type load struct {
	stop     func()
	all      sync.WaitGroup
	patience time.Duration // of every request

	mu     sync.Mutex
	done   map[string]int
	slow   time.Duration // the slowest new connection, with its answer
	bad    []failure
	excuse []span
}

// failure of a request.
type failure struct {
	what string
	span
	err error
}

type span struct{ from, to time.Time }

func (f failure) String() string {
	return fmt.Sprintf("%s %s after %s: %v", f.from.Format("15:04:05.000"), f.what, f.to.Sub(f.from).Round(time.Millisecond), f.err)
}

// replica answers for a tenant and notes what should not have come to it.
type replica struct {
	says   string
	ill    atomic.Bool
	strays atomic.Int64
}

// lines of a long answer, and the pause between them.
const (
	longLines = 100
	longPause = 20 * time.Millisecond
)

func (b *replica) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/admin") || r.Method != http.MethodGet:
		b.strays.Add(1)
	case b.ill.Load():
		w.WriteHeader(http.StatusInternalServerError)
	case r.URL.Path == "/long":
		for i := range longLines {
			fmt.Fprintf(w, "%s %d\n", b.says, i)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(longPause):
			}
		}
		return
	}
	io.WriteString(w, b.says)
}

// talker is one caller with at most one connection, who never tries again.
type talker struct {
	from   guest
	target string
	says   string
	// patience with the connection and each answer; 0: 10 s.
	patience time.Duration
	conn     net.Conn
	in       *bufio.Reader
}

func (k *talker) close() {
	if k.conn != nil {
		k.conn.Close()
		k.conn = nil
	}
}

// ask sends a request and returns the answer, of which the body is still to be read.
func (k *talker) ask(ctx context.Context, method, path string) (*http.Response, error) {
	patience := cmp.Or(k.patience, 10*time.Second)
	if k.conn == nil {
		err := InNetns(k.from.netns, func() (err error) {
			k.conn, err = (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", k.target)
			return err
		})
		if err != nil {
			k.conn = nil
			return nil, fmt.Errorf("connect: %w", err)
		}
		k.in = bufio.NewReader(k.conn)
	}
	k.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(k.conn, "%s %s HTTP/1.1\r\nHost: api\r\nContent-Length: 0\r\n\r\n", method, path); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	resp, err := http.ReadResponse(k.in, &http.Request{Method: method})
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return resp, nil
}

// once asks and wants that answer.
func (k *talker) once(ctx context.Context, method, path string, status int, body string) error {
	resp, err := k.ask(ctx, method, path)
	if err != nil {
		k.close()
		return err
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.Close {
		k.close()
	}
	switch {
	case err != nil:
		return fmt.Errorf("body: %w", err)
	case resp.StatusCode != status:
		return fmt.Errorf("%s %s: %d %q", method, path, resp.StatusCode, got)
	case body != "" && string(got) != body:
		return fmt.Errorf("%s %s: %q, want %q", method, path, got, body)
	}
	return nil
}

// stream reads a long answer, of which every byte must be right.
func (k *talker) stream(ctx context.Context) error {
	defer k.close()
	resp, err := k.ask(ctx, http.MethodGet, "/long")
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /long: %d", resp.StatusCode)
	}
	lines := bufio.NewReader(resp.Body)
	for i := range longLines {
		k.conn.SetDeadline(time.Now().Add(cmp.Or(k.patience, 10*time.Second)))
		line, err := lines.ReadString('\n')
		if err != nil || line != k.says+" "+strconv.Itoa(i)+"\n" {
			return fmt.Errorf("line %d of a long answer: %q: %w", i, line, err)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// kinds of work.
const (
	onKept  = "on kept connections"
	onNew   = "on new connections"
	onLong  = "long answers"
	atRules = "denied"
)

// do works until ctx ends, each time after a pause.
func (w *load) do(ctx context.Context, kind string, pause time.Duration, work func() error) {
	for ctx.Err() == nil {
		began := time.Now()
		err := work()
		now := time.Now()
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		w.done[kind]++
		if err != nil {
			w.bad = append(w.bad, failure{what: kind, span: span{began, now}, err: err})
		} else if kind == onNew {
			w.slow = max(w.slow, now.Sub(began))
		}
		w.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(pause - now.Sub(began)):
		}
	}
}

// size of a load for each tenant and family.
type size struct {
	kept, fresh, long, denied int // at a time
	pause                     time.Duration
}

// begin begins the load of one caller on one address.
func (w *load) begin(ctx context.Context, from guest, to netip.AddrPort, says string, n size) {
	talker := func() *talker { return &talker{from: from, target: to.String(), says: says, patience: w.patience} }
	for range n.kept {
		k := talker()
		w.all.Go(func() {
			defer k.close()
			w.do(ctx, onKept, n.pause, func() error { return k.once(ctx, http.MethodGet, "/cart", http.StatusOK, says) })
		})
	}
	for range n.fresh {
		k := talker()
		w.all.Go(func() {
			w.do(ctx, onNew, n.pause, func() error {
				defer k.close()
				return k.once(ctx, http.MethodGet, "/cart", http.StatusOK, says)
			})
		})
	}
	for range n.long {
		k := talker()
		w.all.Go(func() { w.do(ctx, onLong, 0, func() error { return k.stream(ctx) }) })
	}
	for i := range n.denied {
		k := talker()
		w.all.Go(func() {
			defer k.close()
			w.do(ctx, atRules, n.pause, func() error {
				i++
				if i%4 == 0 {
					k.close()
				}
				if i%2 == 0 {
					return k.once(ctx, http.MethodPost, "/cart", http.StatusForbidden, "")
				}
				return k.once(ctx, http.MethodGet, "/admin/x", http.StatusForbidden, "")
			})
		})
	}
}

// spare excuses what fails of the requests that are under way at a time or begin
// within d after it, but no new connection that is refused.
func (w *load) spare(at time.Time, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.excuse = append(w.excuse, span{at, at.Add(d)})
}

// excused: it was to be expected.
func (w *load) excused(f failure) bool {
	return !strings.Contains(f.err.Error(), "connection refused") && slices.ContainsFunc(w.excuse, func(s span) bool {
		return f.from.Before(s.to) && f.to.After(s.from)
	})
}

// last is when a request that was excused began last, after a time.
func (w *load) last(at time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var d time.Duration
	for _, f := range w.bad {
		d = max(d, f.from.Sub(at))
	}
	return d
}

// end stops the work and fails the test if any of it failed or none was done.
func (w *load) end(t *testing.T) {
	t.Helper()
	w.stop()
	w.all.Wait()
	var failed []failure
	for _, f := range w.bad {
		if !w.excused(f) {
			failed = append(failed, f)
		}
	}
	t.Logf("%v, %d failed, %d more were expected to, slowest new connection %s", w.done, len(failed), len(w.bad)-len(failed), w.slow.Round(time.Millisecond))
	for _, f := range failed[:min(8, len(failed))] {
		t.Error(f)
	}
	for _, kind := range []string{onKept, onNew, onLong, atRules} {
		if w.done[kind] == 0 {
			t.Errorf("too little to prove anything: no requests %s", kind)
		}
	}
}
