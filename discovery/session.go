package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

var errRenewed = errors.New("the certificate was renewed")

// session is one connection from begin to end; accepted says whether the
// server took it.
func (c *Client) session(ctx context.Context, server string, timeout time.Duration) (accepted bool, err error) {
	p, err := load(c.cfg.Dir)
	if err != nil {
		return false, fmt.Errorf("this node has no certificate: %w; join again", err)
	}
	if err := p.check(c.cfg.Node, time.Now()); err != nil {
		return false, fmt.Errorf("the certificate of this node is of no use: %w; check the clock, or join again with a token", err)
	}
	conn, err := dial(server, p.tls())
	if err != nil {
		return false, err
	}
	defer func() {
		if cerr := conn.Close(); err == nil {
			err = cerr
		}
	}()
	client := wire.NewDiscoveryClient(conn)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	late := time.AfterFunc(timeout, cancel)
	stream, err := c.open(ctx, client)
	if !late.Stop() {
		return false, fmt.Errorf("no answer within %s", timeout)
	}
	if err != nil {
		return false, c.otherCA(err)
	}
	c.server.Store(&client) // who is connected can be asked
	defer c.server.Store(nil)
	c.connected.Store(true)
	c.trouble.Store(nil)
	defer c.connected.Store(false)
	c.log.Info("connected to the control plane", "server", server)
	g.Go(func() error { return pulse(ctx, conn) })
	g.Go(func() error { return c.listen(stream) })
	g.Go(func() error { return c.talk(ctx, stream) })
	g.Go(func() error { return c.shipper.run(ctx, client, c.log) })
	g.Go(func() error { return c.renew(ctx, client, p) })
	return true, g.Wait()
}

// otherCA says what to do when the server is not of the CA that this node
// joined. gRPC keeps only the text of errors.
func (c *Client) otherCA(err error) error {
	if !strings.Contains(err.Error(), "signed by unknown authority") {
		return err
	}
	return fmt.Errorf("its certificate is not from the CA that this node joined (%s in %s); if the control plane was made anew, join again with a token and the CA hash of the new one: %w",
		rootFile, c.cfg.Dir, err)
}

// open says hello and waits until the server has accepted.
func (c *Client) open(ctx context.Context, client wire.DiscoveryClient) (wire.Discovery_WatchClient, error) {
	stream, err := client.Watch(ctx)
	if err != nil {
		return nil, err
	}
	hello := &wire.Hello{}
	if c.last != nil {
		hello.Version = string(c.digest.Version())
	}
	c.outbox.begin()
	if err := stream.Send(&wire.FromNode{Hello: hello}); err == nil {
		header, err := stream.Header()
		if header != nil || err != nil {
			return stream, err
		}
	}
	// It was refused; this tells why.
	if _, err := stream.Recv(); err != nil {
		return nil, err
	}
	return nil, errors.New("the server answered before it accepted")
}

// listen takes deltas.
func (c *Client) listen(stream wire.Discovery_WatchClient) error {
	j := wire.NewJoiner(c.cfg.Node)
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		d, err := j.Add(m)
		if d == nil && err == nil {
			continue
		}
		receipt := &wire.Ack{Version: m.GetVersion(), Receipt: true}
		var next *snapshot.Snapshot
		if err == nil {
			next, err = c.apply(d)
		}
		if err != nil {
			c.log.Error("a delta was refused", "error", err)
			receipt.Error = shorten(err.Error())
		} else {
			c.last = next
		}
		if err := c.outbox.receipt(receipt); err != nil {
			return err
		}
		if next != nil {
			c.cfg.Handler.Snapshot(next)
		}
	}
}

// apply makes the next snapshot, and proves that it is the one that was meant.
func (c *Client) apply(d *snapshot.Delta) (*snapshot.Snapshot, error) {
	if c.last == nil && !d.Reset {
		return nil, fmt.Errorf("delta %s: a change, but there is nothing yet that could change", d.Version)
	}
	digest := c.digest.After(c.last, d)
	if v := digest.Version(); v != d.Version {
		return nil, fmt.Errorf("delta %s: the result is version %s", d.Version, v)
	}
	next := c.last.Apply(d)
	c.digest = digest
	return next, nil
}

// talk sends what is in the outbox.
func (c *Client) talk(ctx context.Context, stream wire.Discovery_WatchClient) error {
	for {
		m := c.outbox.next()
		if m == nil {
			select {
			case <-c.outbox.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if n := proto.Size(m); n > wire.MaxMessage {
			c.log.Error("a report is too large to be sent", "bytes", n, "limit", wire.MaxMessage)
			continue
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

// renew replaces the certificate at half of its life, and ends the session
// then: the next one uses the new certificate.
func (c *Client) renew(ctx context.Context, client wire.DiscoveryClient, p *papers) error {
	life := p.leaf.NotAfter.Sub(p.leaf.NotBefore)
	due := p.halfway().Add(rand.N(life/20 + 1))
	for {
		// A timer stands still while the machine sleeps, and knows nothing of a
		// clock that was set.
		wait := time.Until(due)
		t := time.NewTimer(min(wait, maxDoze))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		if wait > maxDoze {
			continue
		}
		err := c.renewNow(ctx, client)
		if err == nil {
			return errRenewed
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		again := min(max(life/50, time.Second), 10*time.Minute)
		due = time.Now().Add(again)
		c.log.Warn("the certificate could not be renewed", "error", err, "ends", p.leaf.NotAfter, "again", again)
	}
}

func (c *Client) renewNow(ctx context.Context, client wire.DiscoveryClient) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	key, csr, err := request()
	if err != nil {
		return err
	}
	reply, err := client.Renew(ctx, &wire.RenewRequest{Csr: csr})
	if err != nil {
		return err
	}
	p, err := newPapers(c.cfg.Node, key, reply.GetChain(), reply.GetRoots())
	if err != nil {
		return err
	}
	return p.save(c.cfg.Dir)
}
