package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"moire.dev/moire/discovery"
	"moire.dev/moire/snapshot"
)

func nodeName(i int) string { return fmt.Sprintf("n%d", i) }

func nodeAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
}

// handler forgets what it gets: it is the transport that is measured. The
// client acknowledges by itself.
type handler struct{}

func (handler) Snapshot(*snapshot.Snapshot) {}

// nodes joins and connects all nodes, until it is killed.
func nodes(ctx context.Context, s size, dir string) error {
	m, err := meet(ctx, dir)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	for i := range s.Nodes {
		c, err := join(ctx, m, dir, i, handler{})
		if err != nil {
			return err
		}
		running.Go(func() { _ = c.Run(ctx) }) // ends with ctx alone
	}
	running.Wait()
	return nil
}

// join makes the client of the i-th node, with a directory of its own in dir.
func join(ctx context.Context, m meeting, dir string, i int, h discovery.Handler) (*discovery.Client, error) {
	home := filepath.Join(dir, nodeName(i))
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	err := discovery.Join(ctx, discovery.JoinConfig{Servers: []string{m.Addr}, Token: m.Token, CAHash: m.CAHash,
		Node: nodeName(i), Address: nodeAddress(i), Dir: home})
	if err != nil {
		return nil, err
	}
	return discovery.NewClient(discovery.ClientConfig{Servers: []string{m.Addr}, Dir: home, Node: nodeName(i),
		Handler: h, Log: slog.New(slog.DiscardHandler)})
}

// meet waits until the server has said where it is.
func meet(ctx context.Context, dir string) (m meeting, err error) {
	for range 600 {
		b, err := os.ReadFile(meetingFile(dir))
		if err == nil {
			return m, json.Unmarshal(b, &m)
		}
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return m, fmt.Errorf("the server did not start within a minute")
}
