package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/wire"
)

const (
	// maxQueue bounds the bytes of records that wait, for a server or for an
	// acknowledgement.
	maxQueue = 8 << 20
	// maxOpen bounds batches that are sent but not acknowledged.
	maxOpen = 8
)

// ErrFull is what Ship returns while too many records wait already.
var ErrFull = errors.New("too many records wait to be sent")

// shipper keeps records until a server has acknowledged them.
type shipper struct {
	wake chan struct{} // holds one signal

	mu    sync.Mutex
	queue []*wire.RecordBatch // the first open ones are sent, not acknowledged
	open  int
	bytes int
}

func newShipper() *shipper { return &shipper{wake: make(chan struct{}, 1)} }

func (s *shipper) add(rs []record.Record, lost uint64) error {
	batches, err := wire.FromRecords(rs, lost)
	if err != nil {
		return fmt.Errorf("ship: %w", err)
	}
	size := 0
	for _, b := range batches {
		size += proto.Size(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes+size > maxQueue {
		return ErrFull
	}
	s.queue = append(s.queue, batches...)
	s.bytes += size
	s.poke()
	return nil
}

func (s *shipper) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run ships until ctx ends; a stream that breaks is made anew. It never ends
// the session: deltas are worth more than records.
func (s *shipper) run(ctx context.Context, client wire.DiscoveryClient, log *slog.Logger) error {
	for wait := newBackoff(); ; {
		err := s.stream(ctx, client)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("records cannot be shipped", "error", err)
		wait.sleep(ctx)
	}
}

func (s *shipper) stream(ctx context.Context, client wire.DiscoveryClient) error {
	s.mu.Lock()
	s.open = 0 // what was not acknowledged is sent again
	s.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	stream, err := client.Ship(ctx)
	if err != nil {
		return err
	}
	g.Go(func() error {
		for acked := uint64(0); ; {
			a, err := stream.Recv()
			if err != nil {
				return err
			}
			if err := s.acknowledge(a.GetReceived() - acked); err != nil {
				return err
			}
			acked = a.GetReceived()
		}
	})
	g.Go(func() error {
		for {
			b := s.next()
			if b == nil {
				select {
				case <-s.wake:
					continue
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if err := stream.Send(b); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// next is the first batch that is not sent yet, if one may be.
func (s *shipper) next() *wire.RecordBatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == len(s.queue) || s.open == maxOpen {
		return nil
	}
	s.open++
	return s.queue[s.open-1]
}

// acknowledge lets the n oldest open batches go.
func (s *shipper) acknowledge(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > uint64(s.open) {
		return errors.New("the server acknowledged records that were never sent")
	}
	for i := range n {
		s.bytes -= proto.Size(s.queue[i])
		s.queue[i] = nil
	}
	s.queue = s.queue[n:]
	s.open -= int(n)
	s.poke()
	return nil
}
