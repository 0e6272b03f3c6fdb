package discovery

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"moire.dev/moire/identity"
	"moire.dev/moire/snapshot/wire"
)

// granting is an Issuer with the CA of one Domain.
type granting struct {
	*identity.Domains
	mu    sync.Mutex
	nodes map[string][]string // SPIFFE IDs by node
}

func (g *granting) Granted(node, spiffe string) (string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return "shop", slices.Contains(g.nodes[node], spiffe)
}

func newGranting(t *testing.T) *granting {
	t.Helper()
	d, err := identity.NewDomains(identity.DomainsConfig{Vault: identity.Files(t.TempDir())})
	if err == nil {
		_, _, err = d.Keep(identity.Wanted{Domain: "shop", UID: "1", TrustDomain: "shop.moire", Life: time.Hour}, func([][]byte) []string { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	return &granting{Domains: d, nodes: map[string][]string{}}
}

const (
	web = "spiffe://shop.moire/ns/shop/sa/web"
	db  = "spiffe://shop.moire/ns/shop/sa/db"
)

// TestIssue: a node gets what was granted there, as long as it is, and nothing
// of any other node, whatever it asks.
func TestIssue(t *testing.T) {
	ca, g := newCA(t, 0), newGranting(t)
	g.nodes["n1"], g.nodes["n2"] = []string{web}, []string{db}
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld(), Issuer: g})
	dir := join(t, ca, s.Addr(), "n1")
	c, _ := startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: dir, Node: "n1", Handler: &kernel{}})
	if _, err := c.Issue(after(t), &wire.IssueRequest{}); err == nil {
		t.Error("nothing was asked, and something came")
	}
	eventually(t, "the connection", func() bool { return c.Connected() && stateOf(s, "n1").Connected })
	key, csr, err := request()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Issue(after(t), &wire.IssueRequest{
		Svids:  []*wire.SVIDRequest{{Spiffe: web, Csr: csr}, {Spiffe: db, Csr: csr}, {Spiffe: web, Csr: []byte("rubbish")}, {Spiffe: web, Csr: bytes.Repeat([]byte{1}, maxCSR+1)}, {Spiffe: web + "\x00", Csr: csr}, {Csr: csr}, {Spiffe: "spiffe://moire/node/n1", Csr: csr}},
		Tokens: []*wire.TokenRequest{{Spiffe: web, Audiences: []string{"x"}}, {Spiffe: db, Audiences: []string{"x"}}, {Spiffe: web}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if leaf := parse(t, out.Svids[0].GetChain()[0]); out.Svids[0].Error != "" || leaf.URIs[0].String() != web || !key.PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("got %s for %v", out.Svids[0].Error, leaf.URIs)
	}
	for i, got := range out.Svids[1:] {
		if got.Error == "" || len(got.Chain) > 0 {
			t.Errorf("request %d was granted", i+1)
		}
	}
	if out.Tokens[0].Error != "" || out.Tokens[0].Token == "" || out.Tokens[0].Until-out.Tokens[0].From != 300 {
		t.Errorf("token %+v", out.Tokens[0])
	}
	for i, got := range out.Tokens[1:] {
		if got.Error == "" || got.Token != "" {
			t.Errorf("token %d was granted", i+1)
		}
	}
	// What is taken back is refused from now on.
	g.mu.Lock()
	g.nodes["n1"] = nil
	g.mu.Unlock()
	if out, err = c.Issue(after(t), &wire.IssueRequest{Svids: []*wire.SVIDRequest{{Spiffe: web, Csr: csr}}}); err != nil || !strings.Contains(out.Svids[0].Error, "granted") {
		t.Errorf("got %v, %v", out, err)
	}
}

// TestIssueBounds: who shows no certificate, asks beside its Watch, or asks for
// too much, gets nothing.
func TestIssueBounds(t *testing.T) {
	ca, g := newCA(t, 0), newGranting(t)
	g.nodes["n1"] = []string{web}
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld(), Issuer: g})
	one := &wire.IssueRequest{Tokens: []*wire.TokenRequest{{Spiffe: web, Audiences: []string{"x"}}}}
	dir := join(t, ca, s.Addr(), "n1")
	p := papersOf(t, dir)
	naked := p.tls()
	naked.Certificates = nil
	if _, err := raw(t, s.Addr(), naked).Issue(after(t), one); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a certificate: %v", err)
	}
	if _, err := raw(t, s.Addr(), p.tls()).Issue(after(t), one); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("without a Watch: %v", err)
	}
	c, _ := startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: dir, Node: "n1", Handler: &kernel{}})
	eventually(t, "the connection", func() bool { return c.Connected() && stateOf(s, "n1").Connected })
	many := &wire.IssueRequest{}
	for range MaxIssue + 1 {
		many.Tokens = append(many.Tokens, one.Tokens[0])
	}
	if _, err := c.Issue(after(t), many); status.Code(err) != codes.InvalidArgument {
		t.Errorf("too many at once: %v", err)
	}
	many.Tokens = many.Tokens[1:]
	exhausted := false
	for range 2 * issueBurst / MaxIssue {
		if _, err := c.Issue(after(t), many); status.Code(err) == codes.ResourceExhausted {
			exhausted = true
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !exhausted {
		t.Error("there is no limit")
	}
	ctx, cancel := context.WithCancel(after(t))
	cancel()
	if _, err := c.Issue(ctx, one); err == nil {
		t.Error("a call goes on after its context has ended")
	}
}

func TestAllowance(t *testing.T) {
	now := time.Unix(1000, 0)
	var a allowance
	if !a.take(issueBurst, now) || a.take(1, now) {
		t.Error("more than the burst")
	}
	now = now.Add(-time.Hour)
	if a.take(1, now) {
		t.Error("a clock that goes back refills it")
	}
	if now = now.Add(time.Second); !a.take(issueRate, now) || a.take(1, now) {
		t.Error("one second brings issueRate")
	}
	if now = now.Add(time.Hour); !a.take(issueBurst, now) || a.take(1, now) {
		t.Error("it grows without a bound")
	}
}

// TestAway: without a connection the answer comes at once.
func TestAway(t *testing.T) {
	c, err := NewClient(ClientConfig{Servers: []string{"127.0.0.1:1"}, Dir: t.TempDir(), Node: "n1", Handler: &kernel{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Issue(after(t), &wire.IssueRequest{}); !errors.Is(err, ErrAway) {
		t.Errorf("got %v", err)
	}
}
