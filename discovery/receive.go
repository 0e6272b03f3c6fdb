package discovery

import (
	"context"
	"sync"
)

// message is what came over a stream, or why nothing will come any more.
type message[M any] struct {
	value M
	err   error
}

// receive gives what recv returns to a loop that also waits for other things.
// It ends after an error, or with ctx, which must be the stream's own.
func receive[M any](ctx context.Context, running *sync.WaitGroup, recv func() (M, error)) <-chan message[M] {
	out := make(chan message[M])
	running.Go(func() {
		for {
			m, err := recv()
			select {
			case out <- message[M]{value: m, err: err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	return out
}
