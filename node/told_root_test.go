package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// byName makes the Policy of the Workloads in shop: out only to names.
func byName(s *snapshot.Snapshot) {
	s.Policies[snapshot.PolicyKey{VNI: 100, Identity: webIdentity, Direction: policy.Egress}] = policy.Set{
		Isolated: "isolated/shop/names/egress",
		Rules: []policy.Rule{{ID: "policy/shop/names/egress/0", Tier: policy.Project, Action: policy.Allow,
			Peers: []policy.Peer{{Name: "*.example.com"}}, Ports: []policy.PortRange{{Protocol: policy.TCP, First: 8080, Last: 8080}}}},
	}
	n := s.Names[100]
	for name, addr := range map[string]string{"api.example.com.": "10.0.0.65", "api6.example.com.": "fd00::101", "api.example.net.": "10.0.0.65"} {
		kind := "A"
		if strings.Contains(addr, ":") {
			kind = "AAAA"
		}
		n.Records = append(n.Records, snapshot.DNSRecord{Name: name, Type: kind, Data: addr, TTL: time.Second})
	}
	s.Names[100] = n
}

// connect opens a connection from a namespace, or says why not.
func connect(netns, addr string) (net.Conn, error) {
	return inNetns(netns, func() (net.Conn, error) {
		return net.DialTimeout("tcp", net.JoinHostPort(addr, "8080"), 400*time.Millisecond)
	})
}

// talks: the connection carries something there and back.
func talks(c net.Conn) bool {
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return false
	}
	b := make([]byte, 6)
	_, err := io.ReadFull(c, b)
	return err == nil && string(b) == "hello\n"
}

func echoIn(t *testing.T, netns, addr string) {
	t.Helper()
	l, err := inNetns(netns, func() (net.Listener, error) { return net.Listen("tcp", net.JoinHostPort(addr, "8080")) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() { stop(); l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// Its end may never be heard: what is cut off is silent.
			context.AfterFunc(ctx, func() { c.Close() })
			all.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
}

// TestPolicyByName: no way by the address alone; the first packet after the
// answer passes; what was told to one tenant is not told to another; when the
// TTL is over, sessions go on, and no new one begins, also across a kill.
func TestPolicyByName(t *testing.T) {
	x := newTenants(t, byName)
	db := addNetns(t, ns(t, "db"))
	got, err := x.client().Attach(t.Context(), local.Attach{Project: "shop", Workload: "db", Networks: []string{"front"}, Netns: db, Labels: map[string]string{"app": "web"}, Persist: true})
	if err != nil {
		t.Fatal(err)
	}
	if a := got.Interfaces[0].Addresses; a[0].String() != "10.0.0.65" || a[1].String() != "fd00::101" {
		t.Fatalf("addresses %v", a)
	}
	targets := map[string]struct{ name, addr string }{"A": {"api.example.com", "10.0.0.65"}, "AAAA": {"api6.example.com", "fd00::101"}}
	sessions := map[string]net.Conn{}
	for kind, c := range targets {
		echoIn(t, db, c.addr)
		sessions[kind] = x.open(t, kind, c.name, c.addr)
		defer sessions[kind].Close()
	}
	time.Sleep(4 * time.Second) // TTL 1 s, grace 2 s
	for kind, c := range sessions {
		if !talks(c) {
			t.Errorf("%s: the session ended with the TTL", kind)
		}
	}
	x.kill()
	x.start()
	time.Sleep(1500 * time.Millisecond)
	for kind, c := range sessions {
		if !talks(c) {
			t.Errorf("%s: the session did not outlive the agent", kind)
		}
		c.Close()
	}
	eventually(t, "the addresses are forgotten", func() bool {
		var b strings.Builder
		err := x.client().Dump(t.Context(), &b)
		return err == nil && !strings.Contains(b.String(), "told shop/web")
	})
	for kind, to := range targets {
		eventually(t, kind+": the kernel has forgotten it too", func() bool {
			c, err := connect(x.shop, to.addr)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		x.refused(t, kind+": after its time", to.addr)
	}
	x.stop()
}

func (x *tenants) refused(t *testing.T, when, addr string) {
	t.Helper()
	if c, err := connect(x.shop, addr); err == nil {
		c.Close()
		t.Errorf("%s: reached by its address alone", when)
	}
}

// open shows that only the right name opens the way, and opens a session.
func (x *tenants) open(t *testing.T, kind, name, addr string) net.Conn {
	t.Helper()
	resolve := func(name string) {
		t.Helper()
		if got := in(t, x.shop, "kdig", "@169.254.169.253", "+short", "+time=3", "+retry=0", name, kind); strings.TrimSpace(got) != addr {
			t.Fatalf("%s is %q", name, got)
		}
	}
	x.refused(t, "before anybody asked", addr)
	if kind == "A" {
		resolve("api.example.net") // the same address under a name that no Policy names
		x.refused(t, "after another name", addr)
	}
	// Somebody else asks, in another Network: that is nothing to us.
	in(t, x.bank, "kdig", "@169.254.169.253", "+time=1", "+retry=0", name, kind)
	x.refused(t, "after another tenant asked", addr)
	resolve(name)
	c, err := connect(x.shop, addr)
	if err != nil {
		t.Fatalf("the first packet after the answer: %v", err)
	}
	if !talks(c) {
		t.Error("the session does not work")
	}
	return c
}
