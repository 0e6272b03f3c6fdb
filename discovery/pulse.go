package discovery

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// A server that is killed is missed at once, because its connections end. One
// that hangs, or that the network lost, is missed by its pulse.
const (
	pulseEvery   = time.Second
	pulseTimeout = 3 * time.Second
)

// pulse asks the server again and again whether it lives, and returns an error
// when it does not answer. The keepalive of gRPC cannot do that: a client may
// not ping more often than every 10 s.
func pulse(ctx context.Context, conn *grpc.ClientConn) error {
	client := grpc_health_v1.NewHealthClient(conn)
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(ctx, pulseTimeout)
		_, err := client.Check(ask, &grpc_health_v1.HealthCheckRequest{})
		cancel()
		switch status.Code(err) {
		case codes.DeadlineExceeded, codes.Unavailable:
			if ctx.Err() == nil {
				return fmt.Errorf("the server has not answered for %s", pulseTimeout)
			}
		}
	}
}
