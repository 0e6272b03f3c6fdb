package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"moire.dev/moire/snapshot"
)

// Bounds of what is asked for.
const (
	maxAudiences = 16
	maxAudience  = 1024     // bytes
	maxToken     = 16 << 10 // bytes
)

// noKeys is the JWK set of a trust domain that has none.
const noKeys = `{"keys":[]}`

func keysOf(t snapshot.Trust) []byte {
	if t.Keys == nil {
		return []byte(noKeys)
	}
	return t.Keys
}

// FetchJWTSVID implements workload.SpiffeWorkloadAPIServer.
func (s *Server) FetchJWTSVID(ctx context.Context, in *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	ids, err := s.who(ctx)
	if err != nil {
		return nil, err
	}
	audiences := in.GetAudience()
	if len(audiences) == 0 || len(audiences) > maxAudiences || slices.ContainsFunc(audiences, func(a string) bool { return a == "" || len(a) > maxAudience }) {
		return nil, status.Errorf(codes.InvalidArgument, "audience: 1 to %d of 1 to %d bytes", maxAudiences, maxAudience)
	}
	if wants := in.GetSpiffeId(); wants != "" {
		if !slices.Contains(ids, wants) {
			return nil, status.Errorf(codes.PermissionDenied, "the caller is not %.200q", wants)
		}
		ids = []string{wants}
	}
	if c, _ := callerOf(ctx); !s.limit.take(c.namespace, len(ids), time.Now()) {
		return nil, status.Errorf(codes.ResourceExhausted, "more than %d tokens a second; keep what you were given until it ends", tokenRate)
	}
	out := &workload.JWTSVIDResponse{}
	for _, id := range ids {
		token, err := s.cfg.Source.Token(ctx, id, audiences)
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		out.Svids = append(out.Svids, &workload.JWTSVID{SpiffeId: id, Svid: token})
	}
	return out, nil
}

// FetchJWTBundles implements workload.SpiffeWorkloadAPIServer.
func (s *Server) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	return watch(s, stream, func(_ context.Context, ids []string) (*workload.JWTBundlesResponse, error) {
		own, federated := s.believed(ids)
		out := &workload.JWTBundlesResponse{Bundles: map[string][]byte{}}
		for _, of := range []map[string]snapshot.Trust{own, federated} {
			for name, t := range of {
				out.Bundles["spiffe://"+name] = keysOf(t)
			}
		}
		return out, nil
	})
}

// ValidateJWTSVID implements workload.SpiffeWorkloadAPIServer: the token must be
// of a trust domain that the caller believes.
func (s *Server) ValidateJWTSVID(ctx context.Context, in *workload.ValidateJWTSVIDRequest) (*workload.ValidateJWTSVIDResponse, error) {
	ids, err := s.who(ctx)
	if err != nil {
		return nil, err
	}
	if in.GetAudience() == "" || len(in.GetSvid()) > maxToken {
		return nil, status.Errorf(codes.InvalidArgument, "audience must be set, and svid has at most %d bytes", maxToken)
	}
	own, federated := s.believed(ids)
	v, err := jwtsvid.ParseAndValidate(in.GetSvid(), keyring{own, federated}, []string{in.GetAudience()})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	claims, err := structpb.NewStruct(v.Claims)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &workload.ValidateJWTSVIDResponse{SpiffeId: v.ID.String(), Claims: claims}, nil
}

// keyring is a jwtbundle.Source.
type keyring []map[string]snapshot.Trust

// GetJWTBundleForTrustDomain implements jwtbundle.Source.
func (k keyring) GetJWTBundleForTrustDomain(td spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	for _, of := range k {
		if t, known := of[td.Name()]; known {
			bundle, err := jwtbundle.Parse(td, keysOf(t))
			if err != nil {
				return nil, fmt.Errorf("the keys of %s: %w", td.Name(), err)
			}
			return bundle, nil
		}
	}
	return nil, errors.New("the caller does not believe it")
}
