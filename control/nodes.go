package control

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
)

// joinTimeout bounds the API calls of one join.
const joinTimeout = 10 * time.Second

// sink is what discovery tells us, until ctx ends.
type sink struct {
	c   *Control
	ctx context.Context
}

// Joined declares the node: a Node object with its address.
func (s sink) Joined(node string, addr netip.Addr) error {
	c := s.c
	clients := c.clients.Load()
	if clients == nil {
		return fmt.Errorf("node %s cannot join yet: the API server is starting; try again in a few seconds", node)
	}
	ctx, cancel := context.WithTimeout(context.Background(), joinTimeout)
	defer cancel()
	for range 5 {
		var have v1alpha1.Node
		err := clients.moire.Get().Resource("nodes").Name(node).Do(ctx).Into(&have)
		switch {
		case apierrors.IsNotFound(err):
			fresh := &v1alpha1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: v1alpha1.NodeSpec{Address: addr.String()}}
			err = clients.moire.Post().Resource("nodes").Body(fresh).Do(ctx).Error()
		case err != nil:
		case have.Spec.External:
			return fmt.Errorf("node %s cannot join: a Node of that name is declared external, which means without an agent; delete it or choose another name", node)
		case have.Spec.Address == addr.String():
			return nil
		case c.world.isConnected(node):
			return fmt.Errorf("node %s cannot join from %s: a node of that name is connected, with the address %s; choose another name, or stop that one first", node, addr, have.Spec.Address)
		default:
			c.log.Info("a node joined with a new address", "node", node, "was", have.Spec.Address, "is", addr)
			have.Spec.Address = addr.String()
			err = clients.moire.Put().Resource("nodes").Name(node).Body(&have).Do(ctx).Error()
		}
		switch {
		case err == nil:
			c.log.Info("node joined", "node", node, "address", addr)
			return nil
		case !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err):
			return fmt.Errorf("node %s cannot join: declare its Node object: %w", node, err)
		}
	}
	return fmt.Errorf("node %s cannot join: its Node object keeps changing; try again", node)
}

// Connected notes that the node has a stream here.
func (s sink) Connected(node string) {
	s.c.log.Info("node connected", "node", node)
	s.c.world.connected(node)
}

// Gone notes that it has none any more. When it is we who go, the node is not
// gone: our next life shall wait for it.
func (s sink) Gone(node string, heard time.Time) {
	if s.ctx.Err() != nil {
		return
	}
	s.c.log.Info("node is away", "node", node)
	s.c.world.gone(node, heard)
}

// Report takes the word of a node.
func (s sink) Report(node string, r snapshot.Report) { s.c.world.report(node, r) }

// Acked notes how far the node is.
func (s sink) Acked(node string, v snapshot.Version, applied bool, errText string) {
	if errText != "" {
		s.c.log.Warn("a node cannot apply its snapshot and goes on with what it has", "node", node, "version", v, "error", errText)
	}
	s.c.world.ack(node, v, applied, errText)
}

// Records keeps what happened.
func (s sink) Records(node string, rs []record.Record, lost uint64) {
	s.c.archive.Add(node, rs, lost)
	s.c.received.Add(uint64(len(rs)))
	if s.c.ipfix != nil {
		s.c.ipfix.Add(rs)
	}
	s.c.world.recordsLost(node, lost)
}

// Captured hands on what captures saw.
func (s sink) Captured(node string, cs []snapshot.Captured) { s.c.publisher.captured(node, cs) }
