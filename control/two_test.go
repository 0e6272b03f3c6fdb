package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/discovery"
)

// etcd starts an etcd of its own for the test.
func etcd(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("etcd")
	if err != nil {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatal("this test needs the program etcd; install etcd-server")
		}
		t.Skip("this test needs the program etcd; install etcd-server")
	}
	client, peer := "http://"+freePort(t), "http://"+freePort(t)
	cmd := exec.Command(bin, "--data-dir", t.TempDir(), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--log-level", "error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, "etcd answers", func() error {
		c, err := net.DialTimeout("tcp", strings.TrimPrefix(client, "http://"), time.Second)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return client
}

// TestTwoControls: two processes on one etcd. One allocates; both know what
// the nodes of the other say; when the leader goes, the other takes over.
func TestTwoControls(t *testing.T) {
	servers := []string{etcd(t)}
	dir := t.TempDir()
	cfg := func(name string) Config {
		return Config{Dir: filepath.Join(dir, name, "control"), RunDir: filepath.Join(dir, name, "run"), EtcdServers: servers}
	}
	one := start(t, cfg("one"))
	two := start(t, cfg("two"))
	if one.join.CAHash != two.join.CAHash {
		t.Fatal("they are not the same authority for nodes")
	}
	one.create(domain("acme"), projectOf("shop", "acme"), network("shop", "front", "10.0.0.0/24"))
	a, b := newAgent(t, one, "node-a"), newAgent(t, two, "node-b")
	a.attach("shop", "web", "front")
	b.attach("shop", "db", "front")
	eventually(t, "nodes of different processes know each other", func() error {
		for _, n := range []*agent{a, b} {
			for _, w := range []string{"web", "db"} {
				if _, err := n.endpoint("shop", w); err != nil {
					return err
				}
			}
		}
		return nil
	})
	t.Run("tokens", func(t *testing.T) { tokensInEtcd(t, one, cfg("nowhere")) })
	t.Run("captures of both", func(t *testing.T) { capturesOfBoth(t, one, a, b) })
	web, _ := a.endpoint("shop", "web")
	db, _ := a.endpoint("shop", "db")
	if web.Addr == db.Addr || web.MAC == db.MAC || web.Identity == db.Identity {
		t.Errorf("given out twice: %+v and %+v", web, db)
	}
	if one.Leading() == two.Leading() {
		t.Errorf("one leads: %v, two leads: %v", one.Leading(), two.Leading())
	}
	eventually(t, "both show the same world", func() error {
		for _, c := range []*running{one, two} {
			for _, w := range []string{"web", "db"} {
				if got, err := c.workload("shop", w); err != nil || got.Status.Phase != v1alpha1.PhaseRunning {
					return fmt.Errorf("%s is %+v, %v", w, got.Status, err)
				}
			}
			for _, n := range []string{"node-a", "node-b"} {
				if got, err := c.node(n); err != nil || got.Status.State != v1alpha1.NodeReady {
					return fmt.Errorf("%s is %+v, %v", n, got.Status, err)
				}
			}
		}
		return nil
	})

	first, second, away := one, two, b
	if two.Leading() {
		first, second, away = two, one, a
	}
	svids := rotationBegins(t, first, a, b)
	first.stop()
	eventually(t, "the other takes over", func() error {
		if !second.Leading() {
			return errors.New("it does not lead yet")
		}
		return nil
	})
	rotationEnds(t, second, away, svids)
	second.create(network("shop", "back", "10.0.0.0/24"))
	away.attach("shop", "late", "back")
	eventually(t, "the new leader allocates", func() error {
		e, err := away.endpoint("shop", "late")
		if err == nil && e.Addr.VNI == web.Addr.VNI {
			err = fmt.Errorf("two Networks have id %d", e.Addr.VNI)
		}
		return err
	})
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct{ cfg, flag string }{{"api", "--api-listen"}, {"discovery", "--discovery-listen"}} {
		cfg := Config{Dir: t.TempDir(), RunDir: t.TempDir(), APIListen: "127.0.0.1:0", DiscoveryListen: "127.0.0.1:0", Log: quiet()}
		if tt.cfg == "api" {
			cfg.APIListen = l.Addr().String()
		} else {
			cfg.DiscoveryListen = l.Addr().String()
		}
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.flag) || !strings.Contains(err.Error(), l.Addr().String()) {
			t.Errorf("%s: got %v, want the address and %s", tt.cfg, err, tt.flag)
		}
	}
}

// tokensInEtcd: with --etcd-servers a token is made, used, listed and revoked
// from a machine that has nothing else of the control plane.
func tokensInEtcd(t *testing.T, r *running, cfg Config) {
	token, err := NewToken(cfg, time.Hour, false, "from elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	if hash, err := CAHash(cfg); err != nil || hash != r.join.CAHash {
		t.Errorf("the hash is %s, %v, want %s", hash, err, r.join.CAHash)
	}
	join := func(node string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		return discovery.Join(ctx, discovery.JoinConfig{Servers: r.join.Servers, Token: token, CAHash: r.join.CAHash, Node: node,
			Address: netip.MustParseAddr("192.0.2.200"), Dir: t.TempDir()})
	}
	if err := join("node-t"); err != nil {
		t.Errorf("a token of the database does not let a node join: %v", err)
	}
	id, _, _ := strings.Cut(token, ".")
	all, err := Tokens(cfg)
	if i := slices.IndexFunc(all, func(k Token) bool { return k.ID == id }); err != nil || i < 0 || all[i].Note != "from elsewhere" || all[i].Once {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := RevokeToken(cfg, id); err != nil {
		t.Error(err)
	}
	if err := join("node-u"); err == nil {
		t.Error("a revoked token let a node join")
	}
	if err := r.admin().Delete().Resource("nodes").Name("node-t").Do(t.Context()).Error(); err != nil {
		t.Error(err)
	}
}

func TestJoinedNeedsTheAPI(t *testing.T) {
	c := &Control{log: silent()}
	if err := (sink{c, t.Context()}).Joined("n1", someReport().Address); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("got %v", err)
	}
	if _, err := New(Config{Dir: t.TempDir(), RunDir: t.TempDir(), APIListen: "nonsense"}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
