package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"moire.dev/moire/snapshot/wire"
)

// JoinConfig is what a node must be told to join.
type JoinConfig struct {
	// Servers are host:port of the control plane, tried one after the other.
	Servers []string
	// Token is <id>.<secret>, made on the control plane.
	Token string
	// CAHash is sha256:<hex> of the root certificate: it proves that the token
	// goes to the right control plane.
	CAHash string
	// Node is the name that this node wants.
	Node string
	// Address on the underlay.
	Address netip.Addr
	// Dir gets node.key, node.crt and ca.crt.
	Dir string
}

// Join gets this node its certificate and keeps it in Dir. A certificate of
// that node and CA that is still good there is left as it is. Join keeps trying
// until ctx ends while no server answers; a refusal by all is final.
func Join(ctx context.Context, cfg JoinConfig) error {
	if cfg.Node == "" || cfg.Dir == "" {
		return errors.New("join: Node and Dir must be set")
	}
	if have, err := load(cfg.Dir); err == nil && have.check(cfg.Node, time.Now()) == nil && (cfg.CAHash == "" || have.trusts(cfg.CAHash)) {
		return nil
	}
	switch {
	case len(cfg.Servers) == 0:
		return errors.New("join: no server is named; say host:port of the control plane")
	case cfg.Token == "":
		return fmt.Errorf("join: there is no good certificate in %s and no token to get one with; make a token on the control plane", cfg.Dir)
	case cfg.CAHash == "":
		return errors.New("join: the CA hash is missing; without it anybody could pose as the control plane; the control plane shows it beside the token")
	case !cfg.Address.IsValid():
		return errors.New("join: the underlay address of this node is missing")
	}
	key, csr, err := request()
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	in := &wire.JoinRequest{Token: cfg.Token, Node: cfg.Node, Csr: csr, Address: cfg.Address.Unmap().AsSlice()}
	for wait := newBackoff(); ; {
		final := true
		var errs []error
		for _, server := range cfg.Servers {
			reply, err := askToJoin(ctx, server, cfg.CAHash, in)
			if err == nil {
				p, err := newPapers(cfg.Node, key, reply.GetChain(), reply.GetRoots())
				if err == nil {
					err = p.save(cfg.Dir)
				}
				if err != nil {
					return fmt.Errorf("join %s: %w", server, err)
				}
				return nil
			}
			final = final && refused(err)
			errs = append(errs, fmt.Errorf("join %s: %w", server, err))
		}
		if final || !wait.sleep(ctx) {
			return errors.Join(errs...)
		}
	}
}

// CheckJoined says why the certificate of the node in dir is of no use now; nil:
// it is good.
func CheckJoined(dir, node string) error {
	p, err := load(dir)
	if err != nil {
		return err
	}
	return p.check(node, time.Now())
}

// refused reports whether trying again would bring the same.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented:
		return true
	}
	return errors.Is(err, errOtherCA)
}

var errOtherCA = errors.New("its certificate does not come from the CA with the given hash; the hash or the address is wrong, or somebody poses as the control plane")

func askToJoin(ctx context.Context, server, caHash string, in *wire.JoinRequest) (*wire.JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	var other atomic.Pointer[error] // gRPC keeps only the text of errors
	conn, err := dial(server, &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		ServerName: ServerName,
		// The root is not known yet, only its hash: VerifyConnection does all of
		// it.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			err := pinned(s.PeerCertificates, caHash)
			if err != nil {
				other.Store(&err)
			}
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	reply, err := wire.NewDiscoveryClient(conn).Join(ctx, in)
	if cerr := conn.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if e := other.Load(); err != nil && e != nil {
		return nil, *e
	}
	return reply, err
}

// pinned checks a chain whose last certificate must be the root with the hash.
func pinned(chain []*x509.Certificate, caHash string) error {
	if len(chain) < 2 {
		return errOtherCA
	}
	root := chain[len(chain)-1]
	if hashOf(root.Raw) != caHash || !root.IsCA {
		return errOtherCA
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, c := range chain[1 : len(chain)-1] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: ServerName, Roots: roots, Intermediates: between,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("certificate of the control plane: %w", err)
	}
	return forServers(chain[0])
}

// dial prepares a connection; the first call makes it.
func dial(server string, cfg *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+server, append(clientOptions(),
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)))...)
}
