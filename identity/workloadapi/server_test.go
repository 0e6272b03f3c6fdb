package workloadapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"moire.dev/moire/identity"
	"moire.dev/moire/snapshot"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

const (
	web   = "spiffe://shop.moire/ns/shop/sa/web"
	admin = "spiffe://shop.moire/ns/shop/sa/admin"
)

// node is a Source with the CAs of two Domains that federate.
type node struct {
	domains *identity.Domains
	wants   map[string]identity.Wanted

	mu      sync.Mutex
	callers map[Namespace][]string
	trusts  map[string]snapshot.Trust
	changed chan struct{}
	away    bool
	made    map[string]SVID
}

func newNode(t testing.TB) *node {
	t.Helper()
	d, err := identity.NewDomains(identity.DomainsConfig{Vault: identity.Files(t.TempDir()), Stale: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{domains: d, wants: map[string]identity.Wanted{}, callers: map[Namespace][]string{}, changed: make(chan struct{}), made: map[string]SVID{}}
	for _, name := range []string{"shop", "bank", "other"} {
		n.wants[name] = identity.Wanted{Domain: name, UID: "1", TrustDomain: name + ".moire", Life: time.Hour}
	}
	n.keep(t)
	return n
}

// keep takes the CAs a step further and shows them.
func (n *node) keep(t testing.TB) {
	t.Helper()
	trusts := map[string]snapshot.Trust{}
	for name, w := range n.wants {
		if _, _, err := n.domains.Keep(w, func([][]byte) []string { return nil }); err != nil {
			t.Fatal(err)
		}
		p, err := n.domains.Public(name)
		if err != nil {
			t.Fatal(err)
		}
		trusts[p.TrustDomain] = snapshot.Trust{Name: p.TrustDomain, TrustDomain: p.TrustDomain, Domain: name, Roots: p.Roots, Keys: p.Keys}
	}
	shop := trusts["shop.moire"]
	shop.Federates = []string{"bank.moire"}
	trusts["shop.moire"] = shop
	n.change(func() { n.trusts = trusts })
}

func (n *node) change(how func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	how()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *node) Identities(ns Namespace) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.callers[ns]
}

func (n *node) Trusts() map[string]snapshot.Trust {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.trusts
}

func (n *node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

func (n *node) SVID(_ context.Context, id string) (SVID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if have, ok := n.made[id]; ok {
		return have, nil
	}
	if n.away {
		return SVID{}, errors.New("the control plane is away")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return SVID{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return SVID{}, err
	}
	chain, err := n.domains.SignSVID("shop", id, csr)
	if err != nil {
		return SVID{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	n.made[id] = SVID{ID: id, Chain: chain, Key: der}
	return n.made[id], err
}

func (n *node) Token(_ context.Context, id string, audiences []string) (string, error) {
	text, _, _, err := n.domains.SignJWT("shop", id, audiences)
	return text, err
}

// namespace is that of a process.
func namespace(t testing.TB, pid string) Namespace {
	t.Helper()
	info, err := os.Stat("/proc/" + pid + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return Namespace{st.Dev, st.Ino}
}

// serve runs a Server and returns where it is.
func serve(t testing.TB, n *node) (address string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "workload.sock")
	s, err := New(Config{Path: path, Source: n, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the socket stays: %v", err)
		}
		goleak.VerifyNone(t)
	})
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return "unix://" + path
		}
	}
	t.Fatal("it does not listen")
	return ""
}

// soon bounds everything.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestGoSPIFFE: the client of the SPIFFE project gets X.509- and JWT-SVIDs and
// bundles, validates tokens, and hears of changes.
func TestGoSPIFFE(t *testing.T) {
	n := newNode(t)
	n.callers[namespace(t, "self")] = []string{web}
	address := serve(t, n)
	source, err := workloadapi.NewX509Source(soon(t), workloadapi.WithClientOptions(workloadapi.WithAddr(address)))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	v, err := source.GetX509SVID()
	if err != nil || v.ID.String() != web {
		t.Fatalf("got %v, %v", v, err)
	}
	if id, _, err := x509svid.Verify(v.Certificates, source); err != nil || id.String() != web {
		t.Errorf("verified as %v, %v", id, err)
	}
	if _, err := source.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString("bank.moire")); err != nil {
		t.Errorf("federated: %v", err)
	}
	if _, err := source.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString("other.moire")); err == nil {
		t.Error("the bundle of a stranger")
	}
	client, err := workloadapi.New(soon(t), workloadapi.WithAddr(address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	bundles, err := client.FetchX509Bundles(soon(t))
	if err != nil || len(bundles.Bundles()) != 2 {
		t.Errorf("%v, %v", bundles, err)
	}
	tokens(t, client)

	// Another root and another certificate reach who listens.
	w := n.wants["shop"]
	w.Rotate = "now"
	n.wants["shop"] = w
	n.change(func() { clear(n.made) })
	n.keep(t)
	n.keep(t)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// The source reads its bundles without its lock, beside its own updates.
		bundles, err := client.FetchX509Bundles(soon(t))
		next, err2 := source.GetX509SVID()
		b, ok := bundles.Get(v.ID.TrustDomain())
		if err == nil && err2 == nil && ok && len(b.X509Authorities()) == 2 && !next.Certificates[0].Equal(v.Certificates[0]) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("who listens hears nothing")
		}
	}
}

func tokens(t *testing.T, client *workloadapi.Client) {
	keys, err := client.FetchJWTBundles(soon(t))
	if err != nil || keys.Len() != 2 {
		t.Fatalf("%v, %v", keys, err)
	}
	token, err := client.FetchJWTSVID(soon(t), jwtsvid.Params{Audience: "db", ExtraAudiences: []string{"cache"}})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := jwtsvid.ParseAndValidate(token.Marshal(), keys, []string{"cache"}); err != nil || v.ID.String() != web {
		t.Errorf("got %v, %v", v, err)
	}
	if v, err := client.ValidateJWTSVID(soon(t), token.Marshal(), "db"); err != nil || v.ID.String() != web {
		t.Errorf("got %v, %v", v, err)
	}
	for name, bad := range map[string]string{"audience": token.Marshal(), "signature": token.Marshal()[:len(token.Marshal())-4] + "AAAA", "rubbish": "a.b.c", "none": ""} {
		audience := "db"
		if name == "audience" {
			audience = "elsewhere"
		}
		if _, err := client.ValidateJWTSVID(soon(t), bad, audience); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := client.FetchJWTSVID(soon(t), jwtsvid.Params{Audience: "db", Subject: spiffeid.RequireFromString(admin)}); status.Code(errors.Unwrap(err)) != codes.PermissionDenied && status.Code(err) != codes.PermissionDenied {
		t.Errorf("a token of somebody else: %v", err)
	}
}

// TestCallers: nobody gets anything who is not attached, does not mean it, or is
// taken away; many identities come together.
func TestCallers(t *testing.T) {
	n := newNode(t)
	self := namespace(t, "self")
	address := serve(t, n)
	client, err := workloadapi.New(soon(t), workloadapi.WithAddr(address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.FetchX509SVID(soon(t)); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a stranger: %v", err)
	}
	n.change(func() { n.callers[self] = []string{admin, web} })
	if all, err := client.FetchX509SVIDs(soon(t)); err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
	raw, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	stream, err := workload.NewSpiffeWorkloadAPIClient(raw).FetchX509SVID(soon(t), &workload.X509SVIDRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("without the header: %v", err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	go func() { ended <- client.WatchX509Context(ctx, watcher{cancel}) }()
	time.Sleep(50 * time.Millisecond)
	n.change(func() { n.callers[self] = nil })
	if err := <-ended; err == nil {
		t.Error("who is not attached any more still listens")
	}
	n.change(func() { n.callers[self] = []string{web}; clear(n.made); n.away = true })
	if _, err := client.FetchX509SVID(soon(t)); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "away") {
		t.Errorf("without a control plane: %v", err)
	}
}

// watcher ends with the first error.
type watcher struct{ stop func() }

func (watcher) OnX509ContextUpdate(*workloadapi.X509Context) {}

func (w watcher) OnX509ContextWatchError(error) { w.stop() }

func TestLimits(t *testing.T) {
	l, now := newLimit(), time.Unix(100, 0)
	a, b := Namespace{1, 1}, Namespace{1, 2}
	for i := range maxEach + 1 {
		if l.enter(a) != (i < maxEach) {
			t.Fatalf("connection %d", i)
		}
	}
	if !l.enter(b) {
		t.Error("one keeps another from connecting")
	}
	l.leave(a)
	if !l.enter(a) {
		t.Error("a place that was left is not free")
	}
	if !l.take(a, tokenBurst, now) || l.take(a, 1, now) || !l.take(b, 1, now) {
		t.Error("tokens are not counted for each")
	}
	if l.take(a, tokenRate, now.Add(-time.Hour)) || !l.take(a, tokenRate, now.Add(time.Second)) || l.take(a, 1, now.Add(time.Second)) {
		t.Error("tokens do not come back as they should")
	}
	for i := range 3 * maxConnections {
		now = now.Add(time.Second)
		l.take(Namespace{2, uint64(i)}, 1, now)
	}
	if len(l.tokens) > maxConnections {
		t.Errorf("%d namespaces are remembered", len(l.tokens))
	}
}
