package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"moire.dev/moire/discovery"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
)

// joinFile is <run dir>/join.json: how a control plane on this machine invites
// its node.
type joinFile struct {
	Servers []string `json:"servers"`
	Token   string   `json:"token"`
	CAHash  string   `json:"caHash"`
}

// link is the way to the control plane: it joins until that worked, then keeps
// connected, and joins anew when the control plane of this machine is another. Before, the last report and acknowledgement wait.
type link struct {
	cfg     Config
	log     *slog.Logger
	handler discovery.Handler
	ready   <-chan struct{}           // last may be asked
	last    func() *snapshot.Snapshot // what this node has; nil: nothing

	look time.Duration // pause between looks at joinFile; 0: lookEvery

	mu     sync.Mutex
	client *discovery.Client
	report *snapshot.Report
	ack    func(*discovery.Client) // the last one; nil: none
	err    error
}

func (l *link) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-l.ready:
	}
	pause := 100 * time.Millisecond
	for {
		client, by, err := l.join(ctx)
		if err == nil {
			if err := l.stay(ctx, client, by); err != nil || ctx.Err() != nil {
				return err
			}
			continue
		}
		l.mu.Lock()
		again := l.err != nil && l.err.Error() == err.Error()
		l.err = err
		l.mu.Unlock()
		if !again && ctx.Err() == nil {
			l.log.Warn("cannot join yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// lookEvery is how often a node without a connection looks whether the control
// plane of this machine is another one now.
const lookEvery = 2 * time.Second

// stay runs the client. It returns before ctx is done when the node has lost
// its connection and must join again: its certificate has ended, or it is
// invited to other servers, or by another CA.
func (l *link) stay(ctx context.Context, client *discovery.Client, by joinFile) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- client.Run(running) }()
	tick := time.NewTicker(cmp.Or(l.look, lookEvery))
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
		if client.Connected() {
			continue
		}
		// The machine may have slept while it ended.
		if err := discovery.CheckJoined(l.cfg.Dir, l.cfg.Name); err != nil {
			l.log.Warn("the certificate of this node is of no use any more; joining again", "error", err)
			stop()
			return <-ended
		}
		if len(l.cfg.Servers) > 0 {
			continue
		}
		now, err := readJoinFile(l.cfg.joinPath())
		if err != nil || slices.Equal(now.Servers, by.Servers) && now.CAHash == by.CAHash {
			continue // no file: the control plane is away
		}
		l.log.Warn("another control plane invites this node; joining it", "file", l.cfg.joinPath(),
			"servers", now.Servers, "ca", now.CAHash, "before", by.Servers, "ca before", by.CAHash)
		stop()
		return <-ended
	}
}

// join makes the client, once this node has its certificate, and says by which
// invitation.
func (l *link) join(ctx context.Context) (*discovery.Client, joinFile, error) {
	j := joinFile{Servers: l.cfg.Servers, Token: l.cfg.Token, CAHash: l.cfg.CAHash}
	if len(j.Servers) == 0 {
		var err error
		if j, err = readJoinFile(l.cfg.joinPath()); err != nil {
			return nil, j, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := discovery.Join(ctx, discovery.JoinConfig{
		Servers: j.Servers, Token: j.Token, CAHash: j.CAHash,
		Node: l.cfg.Name, Address: l.cfg.Address, Dir: l.cfg.Dir,
	})
	if err != nil {
		return nil, j, err
	}
	c, err := discovery.NewClient(discovery.ClientConfig{
		Servers: j.Servers, Dir: l.cfg.Dir, Node: l.cfg.Name, Handler: l.handler, Log: l.log, Last: l.last(),
	})
	if err != nil {
		return nil, j, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client, l.err = c, nil
	if l.report != nil {
		c.Report(*l.report)
	}
	if l.ack != nil {
		l.ack(c)
	}
	return c, j, nil
}

func readJoinFile(path string) (joinFile, error) {
	var j joinFile
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, fmt.Errorf("there is no %s, which a control plane on this machine would write; start it, or pass --server, --token and --ca-hash", path)
	}
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return j, fmt.Errorf("%s: %w", path, err)
	}
	if len(j.Servers) == 0 {
		return j, fmt.Errorf("%s names no servers", path)
	}
	return j, nil
}

// Report takes over the latest report.
func (l *link) Report(r snapshot.Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report = &r
	if l.client != nil {
		l.client.Report(r)
	}
}

// Ack tells what became of a version.
func (l *link) Ack(v snapshot.Version, applied bool, errText string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ack = func(c *discovery.Client) { c.Ack(v, applied, errText) }
	if l.client != nil {
		l.ack(l.client)
	}
}

// Connected says whether the control plane hears us now.
func (l *link) Connected() bool {
	c := l.get()
	return c != nil && c.Connected()
}

// ship sends records.
func (l *link) ship(rs []record.Record, lost uint64) error {
	if c := l.get(); c != nil {
		return c.Ship(rs, lost)
	}
	return errors.New("this node has not joined yet")
}

// captured hands on what a Capture saw; without a connection, and when there is
// too much, it is lost: whoever captures looks now.
func (l *link) captured(c snapshot.Captured) {
	if client := l.get(); client != nil {
		client.Captured(c)
	}
}

// trouble says why this node could not join, or has no connection, if so.
func (l *link) trouble() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil:
		return l.err.Error()
	case l.client != nil:
		return l.client.Trouble()
	}
	return ""
}

func (l *link) get() *discovery.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client
}
