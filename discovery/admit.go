package discovery

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"moire.dev/moire/snapshot/wire"
)

// wrongToken is how long the answer to a wrong token takes. With the limits on
// strangers it bounds guesses to some hundred per second, of 160 bits.
const wrongToken = time.Second

// Bounds of a request to join.
const (
	maxToken = 256
	maxCSR   = 8 << 10
)

// Join implements wire.DiscoveryServer.
func (s *Server) Join(ctx context.Context, in *wire.JoinRequest) (*wire.JoinReply, error) {
	log := s.log.With("node", in.GetNode(), "remote", remote(ctx))
	addr, ok := netip.AddrFromSlice(in.GetAddress())
	switch {
	case !ok || addr.Is4In6() || addr.IsUnspecified() || addr.IsMulticast():
		return nil, status.Errorf(codes.InvalidArgument, "address: %d bytes that are not the address of one host", len(in.GetAddress()))
	case in.GetNode() == "" || len(in.GetNode()) > wire.MaxNode:
		return nil, status.Errorf(codes.InvalidArgument, "node: a name of %d bytes; want 1 to %d", len(in.GetNode()), wire.MaxNode)
	case len(in.GetToken()) > maxToken || len(in.GetCsr()) > maxCSR:
		return nil, status.Error(codes.InvalidArgument, "token or csr is too long")
	}
	if err := s.cfg.CA.CheckToken(in.GetToken()); err != nil {
		log.Warn("a node may not join", "error", err)
		select {
		case <-time.After(wrongToken):
		case <-ctx.Done():
		case <-s.stopping:
		}
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	chain, err := s.cfg.CA.SignNode(in.GetCsr(), in.GetNode())
	if err != nil {
		log.Warn("a node may not join", "error", err)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if known, connected := s.known(in.GetNode()); known {
		log.Warn("a node joins under a name that is in use; if these are two machines, rename one", "connected", connected)
	}
	if err := s.cfg.Sink.Joined(in.GetNode(), addr); err != nil {
		log.Warn("a node may not join", "error", err)
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	log.Info("a node joined", "address", addr)
	return &wire.JoinReply{Chain: chain, Roots: s.cfg.CA.Roots()}, nil
}

// Renew implements wire.DiscoveryServer.
func (s *Server) Renew(ctx context.Context, in *wire.RenewRequest) (*wire.JoinReply, error) {
	node, _, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if len(in.GetCsr()) > maxCSR {
		return nil, status.Error(codes.InvalidArgument, "csr is too long")
	}
	chain, err := s.cfg.CA.SignNode(in.GetCsr(), node)
	if err != nil {
		s.log.Warn("a certificate cannot be renewed", "node", node, "error", err)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.log.Info("a certificate was renewed", "node", node)
	return &wire.JoinReply{Chain: chain, Roots: s.cfg.CA.Roots()}, nil
}

func (s *Server) known(node string) (known, connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, known := s.members[node]
	return known, known && m.last.Load().Connected
}
