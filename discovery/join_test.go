package discovery

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"moire.dev/moire/identity"
)

func TestJoinRefused(t *testing.T) {
	ca, sink := newCA(t, 0), newWorld()
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: sink})
	good := func() JoinConfig {
		return JoinConfig{Servers: []string{s.Addr()}, Token: token(t, ca), CAHash: ca.CAHash(), Node: "n1", Address: underlay, Dir: t.TempDir()}
	}
	expired, err := ca.NewToken(identity.TokenSpec{Life: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	once, err := ca.NewToken(identity.TokenSpec{Once: true})
	if err != nil {
		t.Fatal(err)
	}
	cfg := good()
	cfg.Token = once
	if err := Join(after(t), cfg); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*JoinConfig)
		want   string
	}{
		{"wrong token", func(c *JoinConfig) { c.Token = "aaaaaaaa.bbbb" }, "the token is not valid"},
		{"half a token", func(c *JoinConfig) { c.Token = strings.Split(c.Token, ".")[0] }, "the token is not valid"},
		{"expired token", func(c *JoinConfig) { c.Token = expired }, "ended at"},
		{"token used up", func(c *JoinConfig) { c.Token = once }, "the token is not valid"},
		{"huge token", func(c *JoinConfig) { c.Token = strings.Repeat("x", 10_000) }, "too long"},
		{"no token", func(c *JoinConfig) { c.Token = "" }, "no token to get one with"},
		{"wrong CA hash", func(c *JoinConfig) { c.CAHash = "sha256:" + strings.Repeat("0", 64) }, "does not come from the CA"},
		{"no CA hash", func(c *JoinConfig) { c.CAHash = "" }, "CA hash is missing"},
		{"bad name", func(c *JoinConfig) { c.Node = "N/../1" }, "cannot be a node name"},
		{"no server", func(c *JoinConfig) { c.Servers = nil }, "no server is named"},
		{"refused upstairs", func(c *JoinConfig) { sink.look(func() { sink.refuse = errTest }) }, errTest.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := good()
			c.change(&cfg)
			err := Join(after(t), cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if _, err := load(cfg.Dir); err == nil {
				t.Error("there are papers")
			}
			if tok := cfg.Token; len(tok) > 20 && strings.Contains(err.Error(), tok) {
				t.Error("the error holds the token")
			}
		})
	}
}

func TestTokenDoesNotGoToAStranger(t *testing.T) {
	ca, other := newCA(t, 0), newCA(t, 0)
	asked := make(chan struct{}, 1)
	spy := spyAuthority{CA: other, asked: asked}
	s, _ := startServer(t, ServerConfig{CA: spy, Sink: newWorld()})
	err := Join(after(t), JoinConfig{Servers: []string{s.Addr()}, Token: token(t, ca), CAHash: ca.CAHash(), Node: "n1", Address: underlay, Dir: t.TempDir()})
	if !errors.Is(err, errOtherCA) {
		t.Fatalf("got %v", err)
	}
	select {
	case <-asked:
		t.Fatal("a control plane of another CA got the token")
	default:
	}
}

type spyAuthority struct {
	*identity.CA
	asked chan struct{}
}

func (s spyAuthority) CheckToken(token string) error {
	s.asked <- struct{}{}
	return s.CA.CheckToken(token)
}

func TestJoinTwice(t *testing.T) {
	ca := newCA(t, 0)
	s, stop := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	dir := join(t, ca, s.Addr(), "n1")
	before, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	// Good papers need no server and no token.
	cfg := JoinConfig{Servers: []string{s.Addr()}, CAHash: ca.CAHash(), Node: "n1", Address: underlay, Dir: dir}
	if err := Join(after(t), cfg); err != nil {
		t.Fatal(err)
	}
	if now, err := load(dir); err != nil || !now.leaf.Equal(before.leaf) {
		t.Fatal("the papers changed", err)
	}
	// Those of another CA, or of another node, are not good.
	other := newCA(t, 0)
	s, _ = startServer(t, ServerConfig{CA: other, Sink: newWorld()})
	cfg.Servers, cfg.Token, cfg.CAHash = []string{s.Addr()}, token(t, other), other.CAHash()
	if err := Join(after(t), cfg); err != nil {
		t.Fatal(err)
	}
	if now, err := load(dir); err != nil || !now.trusts(other.CAHash()) {
		t.Fatal("the papers are still those of the first CA", err)
	}
	cfg.Node = "n2"
	if err := Join(after(t), cfg); err != nil {
		t.Fatal(err)
	}
	if now, err := load(dir); err != nil || now.leaf.URIs[0].Path != "/node/n2" {
		t.Fatal("the papers are still those of the first node", err)
	}
}

func TestJoinTriesTheNextServer(t *testing.T) {
	ca := newCA(t, 0)
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := dead.Addr().String()
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	err = Join(after(t), JoinConfig{Servers: []string{addr, s.Addr()}, Token: token(t, ca), CAHash: ca.CAHash(), Node: "n1", Address: underlay, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	err = Join(ctx, JoinConfig{Servers: []string{addr}, Token: token(t, ca), CAHash: ca.CAHash(), Node: "n1", Address: underlay, Dir: t.TempDir()})
	if status.Code(err) != codes.Unavailable && !strings.Contains(err.Error(), "refused") {
		t.Fatalf("got %v", err)
	}
}
