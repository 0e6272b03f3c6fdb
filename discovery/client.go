package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// Handler takes what comes.
type Handler interface {
	// Snapshot is called with each new snapshot, whole, one after the other. It
	// should return at once: nothing else comes in meanwhile.
	Snapshot(*snapshot.Snapshot)
}

// ClientConfig of a Client.
type ClientConfig struct {
	// Servers are host:port of the control plane; when one fails, the next is
	// tried.
	Servers []string
	// Dir holds what Join put there. It is read again for every connection.
	Dir string
	// Node is the name of this node.
	Node    string
	Handler Handler
	Log     *slog.Logger // nil: slog.Default()
	// Last is the snapshot that the node has already; nil: none. Handler is not
	// called for it.
	Last *snapshot.Snapshot
}

// Times of the client.
const (
	// A server has 2 s to accept; when no server did, they get more time, for
	// one that all nodes come back to at once.
	minConnect = 2 * time.Second
	maxConnect = 10 * time.Second

	maxDoze     = time.Minute // between looks at the clock
	joinTimeout = 10 * time.Second
	minBackoff  = 50 * time.Millisecond
	maxBackoff  = 5 * time.Second
)

// Client is the node's end. All methods may be called at any time and, but for
// Issue, never wait for the network.
type Client struct {
	cfg       ClientConfig
	log       *slog.Logger
	running   atomic.Bool
	connected atomic.Bool
	trouble   atomic.Pointer[string]               // nil: none
	server    atomic.Pointer[wire.DiscoveryClient] // nil: no connection
	outbox    *outbox
	shipper   *shipper
	last      *snapshot.Snapshot // of the one session that runs
	digest    snapshot.Digest    // of last
}

// NewClient checks the configuration; Run starts.
func NewClient(cfg ClientConfig) (*Client, error) {
	if len(cfg.Servers) == 0 || cfg.Dir == "" || cfg.Node == "" || cfg.Handler == nil {
		return nil, errors.New("discovery: Servers, Dir, Node and Handler must be set")
	}
	if cfg.Last != nil && cfg.Last.Node != cfg.Node {
		return nil, fmt.Errorf("discovery: the last snapshot is for node %q, this is %q", cfg.Last.Node, cfg.Node)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	c := &Client{cfg: cfg, log: cfg.Log, outbox: newOutbox(), shipper: newShipper(), last: cfg.Last}
	if c.last != nil {
		c.digest = c.last.Digest()
	}
	return c, nil
}

// Connected says whether a server hears us now.
func (c *Client) Connected() bool { return c.connected.Load() }

// Trouble is why there is no connection, in words for people; empty while there
// is one and before the first try.
func (c *Client) Trouble() string {
	if t := c.trouble.Load(); t != nil {
		return *t
	}
	return ""
}

// Report tells how things are here; of several in a row the last is sent, and
// again after each reconnect. The report must not be changed afterwards.
func (c *Client) Report(r snapshot.Report) { c.outbox.report(&r) }

// Ack tells that a version is in the kernel, or why not. The last one is sent
// again after each reconnect. That a version arrived the client tells by
// itself.
func (c *Client) Ack(v snapshot.Version, applied bool, errText string) {
	c.outbox.ack(&wire.Ack{Version: string(v), Applied: applied, Error: shorten(errText)})
}

// Captured tells what a Capture of the snapshot saw, in order. false: too much
// waits for the server already, and this one is lost.
func (c *Client) Captured(p snapshot.Captured) bool { return c.outbox.capture(p) }

// Ship takes records to send, in order. ErrFull means that it took none of
// them; they may be tried again. Records whose acknowledgement was lost with a
// connection are sent twice.
func (c *Client) Ship(rs []record.Record, lost uint64) error { return c.shipper.add(rs, lost) }

// Run keeps a connection until ctx ends, and returns when all has stopped. It
// can run once.
func (c *Client) Run(ctx context.Context) error {
	if c.running.Swap(true) {
		return errors.New("discovery: a Client runs once; make another one")
	}
	wait, timeout := newBackoff(), minConnect
	told := "" // the trouble that was logged; the same again is not
	for next := 0; ctx.Err() == nil; {
		server := c.cfg.Servers[next%len(c.cfg.Servers)]
		begin := time.Now()
		accepted, err := c.session(ctx, server, timeout)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, errRenewed) {
			continue // the same server, with the new certificate
		}
		text := server + ": " + err.Error()
		c.trouble.Store(&text)
		if accepted || text != told {
			told = text
			c.log.Warn("no connection to the control plane; what this node has stays in force", "server", server, "error", err)
		}
		next++
		switch {
		case accepted:
			timeout = minConnect
			if time.Since(begin) > maxBackoff {
				wait = newBackoff()
			}
			wait.sleep(ctx)
		case next%len(c.cfg.Servers) == 0: // the round is over
			timeout = min(2*timeout, maxConnect)
			wait.sleep(ctx)
		}
	}
	return nil
}

// pause grows from minBackoff to maxBackoff.
type pause struct{ next time.Duration }

func newBackoff() *pause { return &pause{next: minBackoff} }

// sleep waits for half to one and a half of the next pause; false: ctx ended.
func (p *pause) sleep(ctx context.Context) bool {
	d := min(p.next/2+rand.N(p.next), maxBackoff)
	p.next = min(2*p.next, maxBackoff)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func clientOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minBackoff, Multiplier: 2, Jitter: 0.2, MaxDelay: maxBackoff},
			MinConnectTimeout: maxConnect,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage), grpc.MaxCallSendMsgSize(wire.MaxMessage)),
		grpc.WithMaxHeaderListSize(maxHeader),
	}
}
