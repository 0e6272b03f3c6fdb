package workloadapi

import (
	"bytes"
	"context"
	"maps"
	"strings"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"moire.dev/moire/snapshot"
)

// trustDomainOf is the trust domain of a SPIFFE ID.
func trustDomainOf(id string) string {
	rest, _ := strings.CutPrefix(id, "spiffe://")
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// believed are the Trusts that the identities believe: their own, and those that
// these federate with, by trust domain.
func (s *Server) believed(ids []string) (own, federated map[string]snapshot.Trust) {
	all := s.cfg.Source.Trusts()
	own, federated = map[string]snapshot.Trust{}, map[string]snapshot.Trust{}
	for _, id := range ids {
		t, known := all[trustDomainOf(id)]
		if !known {
			continue
		}
		own[t.TrustDomain] = t
		for _, name := range t.Federates {
			if f, known := all[name]; known {
				federated[f.TrustDomain] = f
			}
		}
	}
	maps.DeleteFunc(federated, func(name string, _ snapshot.Trust) bool { return own[name].Name != "" })
	return own, federated
}

// FetchX509SVID implements workload.SpiffeWorkloadAPIServer.
func (s *Server) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	return watch(s, stream, func(ctx context.Context, ids []string) (*workload.X509SVIDResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, svidWait)
		defer cancel()
		own, federated := s.believed(ids)
		out := &workload.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
		for _, id := range ids {
			v, err := s.cfg.Source.SVID(ctx, id)
			if err != nil {
				return nil, status.Error(codes.Unavailable, err.Error())
			}
			out.Svids = append(out.Svids, &workload.X509SVID{SpiffeId: id, X509Svid: bytes.Join(v.Chain, nil), X509SvidKey: v.Key, Bundle: bytes.Join(own[trustDomainOf(id)].Roots, nil)})
		}
		for name, t := range federated {
			out.FederatedBundles["spiffe://"+name] = bytes.Join(t.Roots, nil)
		}
		return out, nil
	})
}

// FetchX509Bundles implements workload.SpiffeWorkloadAPIServer.
func (s *Server) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	return watch(s, stream, func(_ context.Context, ids []string) (*workload.X509BundlesResponse, error) {
		own, federated := s.believed(ids)
		out := &workload.X509BundlesResponse{Bundles: map[string][]byte{}}
		for _, of := range []map[string]snapshot.Trust{own, federated} {
			for name, t := range of {
				out.Bundles["spiffe://"+name] = bytes.Join(t.Roots, nil)
			}
		}
		return out, nil
	})
}
