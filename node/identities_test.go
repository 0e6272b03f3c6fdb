package node

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"moire.dev/moire/identity"
	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

const webSPIFFE = "spiffe://d.moire/ns/shop/sa/default"

// granting certifies for the fake control plane what that has granted.
type granting struct {
	*identity.Domains
	control *control
}

func (g granting) Granted(_, spiffe string) (string, bool) {
	return "d", spiffe == webSPIFFE && g.control.has(func() bool { return len(g.control.report.Attachments) > 0 })
}

// withIdentities is a control plane with a CA for the Domain; a Workload is in
// the mesh when meshed.
func withIdentities(t *testing.T, meshed bool) *control {
	t.Helper()
	domains, err := identity.NewDomains(identity.DomainsConfig{Vault: identity.Files(t.TempDir())})
	if err == nil {
		_, _, err = domains.Keep(identity.Wanted{Domain: "d", UID: "1", TrustDomain: "d.moire", Life: time.Hour}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := newControl(t, func(s *snapshot.Snapshot) {
		p, err := domains.Public("d")
		if err != nil {
			t.Error(err)
		}
		s.Trusts = map[string]snapshot.Trust{"d.moire": {Name: "d.moire", TrustDomain: "d.moire", Domain: "d", Roots: p.Roots, Keys: p.Keys}}
		id := s.Identities[webIdentity]
		id.SPIFFE, id.Domain = webSPIFFE, "d"
		s.Identities[webIdentity] = id
		for a, e := range s.Endpoints {
			if meshed {
				e.Mode = snapshot.Strict
			}
			s.Endpoints[a] = e
		}
	})
	c.issuer = granting{domains, c}
	return c
}

// TestIdentities: an application in the namespace of a Workload gets who it is,
// with or without a control plane, and nobody does who is not attached.
func TestIdentities(t *testing.T) {
	needRoot(t)
	c := withIdentities(t, false)
	stopControl := c.run("127.0.0.1:0")
	defer func() { stopControl() }()
	b := newBench(t)
	up := &link{cfg: b.cfg, log: b.log, handler: b.loop, ready: b.started, last: func() *snapshot.Snapshot { return b.view.Load().wanted }}
	who, stopWho := startIdentities(t, b, up)
	b.loop.up, b.loop.identities = up, who
	client, _, stop := b.serve(t)
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = up.run(ctx) })
	c.invite(t, b.dir)
	eventually(t, "the node is connected", up.Connected)

	api, err := workloadapi.New(t.Context(), workloadapi.WithAddr(b.cfg.workloadAPI()))
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	if _, err := api.FetchX509SVID(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("before it is attached: %v", err)
	}
	got, err := client.Attach(t.Context(), web())
	if err != nil || got.WorkloadAPI != b.cfg.workloadAPI() {
		t.Fatalf("attached %+v, %v", got, err)
	}
	if st, err := client.Status(t.Context()); err != nil || st.WorkloadAPI != got.WorkloadAPI {
		t.Errorf("status %+v, %v", st, err)
	}
	if n := len(who.certificates()); n != 0 {
		t.Errorf("%d certificates that nobody needs", n)
	}
	svid, err := api.FetchX509SVID(t.Context())
	if err != nil || svid.ID.String() != webSPIFFE {
		t.Fatalf("got %v, %v", svid, err)
	}
	if token, err := api.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: "db"}); err != nil || token.ID.String() != webSPIFFE {
		t.Errorf("got %v, %v", token, err)
	}
	eventually(t, "the proxies get it too", func() bool { return strings.Contains(who.certificates()[webSPIFFE].Chain, "BEGIN CERTIFICATE") })
	eventually(t, "the control plane hears which roots are in force", func() bool {
		return c.has(func() bool { return len(c.report.Trusts) == 1 && c.report.Trusts[0].Name == "d.moire" })
	})

	// Without a control plane, after a restart, there is what there was.
	stopControl()
	cancel()
	stopWho()
	again, stopAgain := startIdentities(t, b, &link{})
	defer stopAgain()
	again.holds(*who.here.Load(), map[string]bool{webSPIFFE: true})
	again.believes(who.Trusts())
	if next, err := api.FetchX509SVID(t.Context()); err != nil || !next.Certificates[0].Equal(svid.Certificates[0]) {
		t.Errorf("got %v, %v", next, err)
	}
	// A namespace that is somebody else's now is not this Workload's.
	moved := *who.here.Load()
	moved = append(moved[:0:0], moved...)
	moved[0].netns = "/proc/1/ns/mnt"
	again.holds(moved, map[string]bool{webSPIFFE: true})
	if _, err := api.FetchX509SVID(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("by a path that leads elsewhere: %v", err)
	}
}

func startIdentities(t *testing.T, b *bench, up *link) (*identities, func()) {
	t.Helper()
	who, err := openIdentities(b.cfg, up, b.loop.stir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := who.run(ctx); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the socket", func() bool { _, err := os.Stat(b.cfg.workloadSocket()); return err == nil })
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return who, stop
}

// TestIdentitiesInTheMesh: who is in the mesh has its certificate without asking.
func TestIdentitiesInTheMesh(t *testing.T) {
	needRoot(t)
	c := withIdentities(t, true)
	stopControl := c.run("127.0.0.1:0")
	defer stopControl()
	b := newBench(t)
	up := &link{cfg: b.cfg, log: b.log, handler: b.loop, ready: b.started, last: func() *snapshot.Snapshot { return b.view.Load().wanted }}
	who, _ := startIdentities(t, b, up)
	b.loop.up, b.loop.identities = up, who
	client, _, stop := b.serve(t)
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = up.run(ctx) })
	c.invite(t, b.dir)
	if _, err := client.Attach(t.Context(), web()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a certificate", func() bool { return who.certificates()[webSPIFFE].Key != "" })
	if err := client.Detach(t.Context(), local.Detach{Project: "shop", Workload: "web"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes with the Workload", func() bool { return len(who.certificates()) == 0 })
}
