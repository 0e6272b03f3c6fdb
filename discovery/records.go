package discovery

import (
	"errors"
	"io"
	"time"

	"moire.dev/moire/snapshot/wire"
)

// Ship implements wire.DiscoveryServer.
func (s *Server) Ship(stream wire.Discovery_ShipServer) error {
	ctx := stream.Context()
	node, until, err := s.caller(ctx)
	if err != nil {
		return err
	}
	m := s.enter(node)
	defer s.leave(m)
	t := m.ship.take()
	defer t.end()
	ends := time.NewTimer(time.Until(until))
	defer ends.Stop()
	received := receive(ctx, &s.streams, stream.Recv)
	for n := uint64(1); ; n++ {
		select {
		case batch := <-received:
			if errors.Is(batch.err, io.EOF) {
				return nil
			}
			if batch.err != nil {
				return batch.err
			}
			records, lost, err := wire.ToRecords(node, batch.value)
			if err != nil {
				// To refuse it would only bring it back.
				s.log.Error("a batch of records was dropped", "node", node, "records", len(batch.value.GetRecords()), "error", err)
			} else {
				s.cfg.Sink.Records(node, records, lost)
			}
			if err := stream.Send(&wire.ShipAck{Received: n}); err != nil {
				return err
			}
		case <-ends.C:
			return errEnded
		case <-t.stop:
			return errReplaced
		case <-s.stopping:
			return errStopping
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
