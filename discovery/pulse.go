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

// pulses answers the pulse of nodes, and notes when it came: a connection that
// falls silent ends only a while later.
type pulses struct {
	grpc_health_v1.HealthServer
	server *Server
}

// Check implements grpc_health_v1.HealthServer.
func (p pulses) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if node, _, err := p.server.caller(ctx); err == nil {
		p.server.felt(node)
	}
	return p.HealthServer.Check(ctx, r)
}

// felt notes a sign of life of a node.
func (s *Server) felt(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.members[node]; m != nil {
		m.felt.Store(time.Now().UnixNano())
	}
}

// heard is when a node whose connection has just ended was heard last: now, when it
// had given a sign of life in time.
func (m *member) heard() time.Time {
	now, last := time.Now(), time.Unix(0, m.felt.Load())
	if m.felt.Load() == 0 || now.Sub(last) < pulseEvery*3/2 {
		return now
	}
	return last
}

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
