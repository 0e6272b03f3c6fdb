package attack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Attack is one way to do harm.
type Attack struct {
	Name  string
	About string
	// Span that it lasts.
	Span time.Duration
	// Connections at a time.
	Connections int
	// Closes: a safe proxy ends its connections within Span.
	Closes bool
	// Held: resident memory is judged per connection (S4) in place of in all.
	Held bool
	// H2 is spoken; otherwise HTTP/1.
	H2 bool
	// Target listener: "tls", or empty: plain.
	Target string
	// Again: a connection that was ended is opened anew, up to this many times.
	Again int

	one func(*victim) error
}

// Attacks are all, in the order of the table.
func Attacks() []Attack {
	return slices.Concat(floods(), bombs(), stalls(), slow())
}

// Find is the attack called name.
func Find(name string) (Attack, bool) {
	all := Attacks()
	i := slices.IndexFunc(all, func(a Attack) bool { return a.Name == name })
	if i < 0 {
		return Attack{}, false
	}
	return all[i], true
}

// Outcome is what an attacker could do.
type Outcome struct {
	// Opened connections, and those that the proxy Closed.
	Opened, Closed int
	// Refused: no connection could be opened.
	Refused int
	// Sent units (frames, requests, bytes: what the attack counts) in all, and on
	// the connection that was closed first.
	Sent, First int64
	// After is when the first was closed, since it was opened.
	After time.Duration
}

// victim is one connection of an attacker.
type victim struct {
	net.Conn
	ctx context.Context
	// sent counts units.
	sent *atomic.Int64
	// gone is closed when the proxy ended the connection before the time was up, as
	// who reads in the background sees it.
	gone chan struct{}
	once sync.Once
}

// ends notes what a read in the background ended with.
func (v *victim) ends(err error) {
	if v.ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		v.once.Do(func() { close(v.gone) })
	}
}

// ended by the proxy, as far as is known.
func (v *victim) ended() bool {
	select {
	case <-v.gone:
		return true
	default:
		return false
	}
}

// over says whether the time is up, or the connection gone.
func (v *victim) over() bool { return v.ctx.Err() != nil || v.ended() }

// hold waits until the proxy closes or the time is up.
func (v *victim) hold() error {
	_, err := io.Copy(io.Discard, v.Conn)
	if err == nil {
		return io.EOF
	}
	return err
}

// sink reads in the background until the connection ends.
func (v *victim) sink() {
	go func() {
		_, err := io.Copy(io.Discard, v.Conn)
		v.ends(err)
	}()
}

// pause waits; false when the time is up, or the connection gone.
func (v *victim) pause(d time.Duration) bool {
	select {
	case <-v.ctx.Done():
	case <-v.gone:
	case <-time.After(d):
		return !v.over()
	}
	return false
}

// Run attacks address, a loopback address, for a.Span.
func (a Attack) Run(parent context.Context, address string) (Outcome, error) {
	if err := loopback(address); err != nil {
		return Outcome{}, err
	}
	ctx, cancel := context.WithTimeout(parent, a.Span)
	defer cancel()
	var mu sync.Mutex
	var out Outcome
	var wg sync.WaitGroup
	for i := range a.Connections {
		wg.Go(func() {
			for range 1 + a.Again {
				if ctx.Err() != nil {
					return
				}
				a.attackOnce(ctx, address, &mu, &out)
			}
		})
		if a.Connections > 500 && i%100 == 99 {
			time.Sleep(10 * time.Millisecond) // ten thousand a second
		}
	}
	wg.Wait()
	return out, nil
}

func (a Attack) attackOnce(ctx context.Context, address string, mu *sync.Mutex, out *Outcome) {
	start := time.Now()
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		if ctx.Err() == nil {
			mu.Lock()
			out.Refused++
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}
		return
	}
	defer conn.Close()
	// The end of the time ends every read and write.
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return
	}
	var sent atomic.Int64
	v := &victim{Conn: conn, ctx: ctx, sent: &sent, gone: make(chan struct{})}
	err = a.one(v)
	after := time.Since(start)
	mu.Lock()
	defer mu.Unlock()
	out.Opened++
	out.Sent += sent.Load()
	if v.ended() || closedByPeer(err) {
		if out.Closed == 0 {
			out.First, out.After = sent.Load(), after
		}
		out.Closed++
	}
}

// closedByPeer: the proxy ended the connection, not our time.
func closedByPeer(err error) bool {
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) &&
		(errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

func (o Outcome) String() string {
	if o.Closed == 0 {
		return fmt.Sprintf("no (%d sent)", o.Sent)
	}
	return fmt.Sprintf("%d of %d, first after %d in %s", o.Closed, o.Opened, o.First, o.After.Round(10*time.Millisecond))
}
