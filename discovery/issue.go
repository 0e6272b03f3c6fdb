package discovery

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"moire.dev/moire/snapshot/wire"
)

// Issuer certifies identities.
type Issuer interface {
	// Granted says of which Domain an identity is that was granted to an
	// attachment which is on the node now; false: none was.
	Granted(node, spiffe string) (domain string, ok bool)
	// SignSVID turns a PKCS #10 request into an X.509-SVID, leaf first.
	SignSVID(domain, spiffe string, csr []byte) (chain [][]byte, err error)
	// SignJWT makes a JWT-SVID.
	SignJWT(domain, spiffe string, audiences []string) (token string, from, until time.Time, err error)
}

// Bounds of what a node may ask for.
const (
	// MaxIssue bounds the SVIDs, and the tokens, of one call.
	MaxIssue = 64
	// A node gets issueBurst of them at once, and issueRate each second.
	issueBurst = 1000
	issueRate  = 50
)

// Issue implements wire.DiscoveryServer. Who asks is what its certificate says,
// and what it may have is what was granted to attachments there.
func (s *Server) Issue(ctx context.Context, in *wire.IssueRequest) (*wire.IssueReply, error) {
	node, _, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	n := len(in.GetSvids()) + len(in.GetTokens())
	if n == 0 || len(in.GetSvids()) > MaxIssue || len(in.GetTokens()) > MaxIssue {
		return nil, status.Errorf(codes.InvalidArgument, "%d SVIDs and %d tokens; at most %d of each, and one in all", len(in.GetSvids()), len(in.GetTokens()), MaxIssue)
	}
	if s.cfg.Issuer == nil {
		return nil, status.Error(codes.Unimplemented, "this control plane issues no identities")
	}
	m := s.enter(node)
	defer s.leave(m)
	if !m.last.Load().Connected {
		return nil, status.Error(codes.FailedPrecondition, "a node asks while it watches, or its attachments are not known")
	}
	if !m.issue.take(n, time.Now()) {
		return nil, status.Errorf(codes.ResourceExhausted, "more than %d identities a second; ask again in a moment", issueRate)
	}
	out := &wire.IssueReply{}
	for _, r := range in.GetSvids() {
		got := &wire.IssuedSVID{}
		domain, err := s.granted(node, r.GetSpiffe())
		if err == nil && len(r.GetCsr()) > maxCSR {
			err = errors.New("csr is too long")
		}
		if err == nil {
			got.Chain, err = s.cfg.Issuer.SignSVID(domain, r.GetSpiffe(), r.GetCsr())
		}
		got.Error = s.refusal(node, r.GetSpiffe(), err)
		out.Svids = append(out.Svids, got)
	}
	for _, r := range in.GetTokens() {
		got := &wire.IssuedToken{}
		domain, err := s.granted(node, r.GetSpiffe())
		if err == nil {
			err = s.token(got, domain, r)
		}
		got.Error = s.refusal(node, r.GetSpiffe(), err)
		out.Tokens = append(out.Tokens, got)
	}
	return out, nil
}

func (s *Server) token(got *wire.IssuedToken, domain string, r *wire.TokenRequest) error {
	token, from, until, err := s.cfg.Issuer.SignJWT(domain, r.GetSpiffe(), r.GetAudiences())
	if err == nil {
		got.Token, got.From, got.Until = token, from.Unix(), until.Unix()
	}
	return err
}

var errNotGranted = errors.New("no attachment on this node was granted that identity")

func (s *Server) granted(node, spiffe string) (domain string, err error) {
	domain, ok := s.cfg.Issuer.Granted(node, spiffe)
	if !ok {
		return "", errNotGranted
	}
	return domain, nil
}

// refusal is what the node is told; empty: nothing is wrong.
func (s *Server) refusal(node, spiffe string, err error) string {
	if err == nil {
		s.log.Debug("an identity was certified", "node", node, "identity", spiffe)
		return ""
	}
	s.log.Warn("an identity is not certified", "node", node, "identity", shorten(spiffe), "error", err)
	return shorten(err.Error())
}

// allowance refills while time goes by.
type allowance struct {
	mu   sync.Mutex
	used float64 // of issueBurst
	at   time.Time
}

// take uses n up, if that many are left.
func (a *allowance) take(n int, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.at.IsZero() {
		a.used = max(0, a.used-issueRate*max(0, now.Sub(a.at).Seconds()))
	}
	a.at = now
	if a.used+float64(n) > issueBurst {
		return false
	}
	a.used += float64(n)
	return true
}

// ErrAway: there is no connection to the control plane now.
var ErrAway = errors.New("the control plane is away")

// Issue asks the control plane for identities of attachments on this node.
// Unlike everything else here it waits for the answer.
func (c *Client) Issue(ctx context.Context, in *wire.IssueRequest) (*wire.IssueReply, error) {
	server := c.server.Load()
	if server == nil {
		return nil, ErrAway
	}
	out, err := (*server).Issue(ctx, in)
	if err == nil && (len(out.GetSvids()) != len(in.GetSvids()) || len(out.GetTokens()) != len(in.GetTokens())) {
		return nil, errors.New("the control plane answers other questions than were asked")
	}
	return out, err
}
