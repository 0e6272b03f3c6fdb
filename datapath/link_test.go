package datapath

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// seen adds how a linked Network sees an address.
func (w *world) seen(from snapshot.VNI, as string, home snapshot.VNI, at string) {
	w.t.Helper()
	h := snapshot.Addr{VNI: home, IP: netip.MustParseAddr(at)}
	e, ok := w.endpoints[h]
	if !ok {
		w.t.Fatalf("nobody is at %v", h)
	}
	e.Addr, e.Home = snapshot.Addr{VNI: from, IP: netip.MustParseAddr(as)}, h
	w.endpoints[e.Addr] = e
}

// twoDomains: acme's web on node a and bolt's db on node b and local on node a
// all have the same addresses in Networks with the same prefixes, which are
// linked with translation.
func twoDomains(t *testing.T) *world {
	w := twoNodes(t, "192.168.77.")
	w.network(100, "acme", "10.1.0.0/24", "fd10:1::/64")
	w.network(101, "bolt", "10.1.0.0/24", "fd10:1::/64")
	w.workload("a", "acme", "web", 100, 11, "10.1.0.2", "fd10:1::2")
	w.workload("b", "bolt", "db", 101, 21, "10.1.0.2", "fd10:1::2")
	w.workload("a", "bolt", "near", 101, 22, "10.1.0.3", "fd10:1::3")
	w.seen(101, "10.77.0.2", 100, "10.1.0.2")
	w.seen(101, "fd77:1::2", 100, "fd10:1::2")
	w.joinBolt()
	w.apply()
	t.Cleanup(w.dump)
	return w
}

// joinBolt lets acme see bolt.
func (w *world) joinBolt() {
	w.seen(100, "10.88.0.2", 101, "10.1.0.2")
	w.seen(100, "10.88.0.3", 101, "10.1.0.3")
	w.seen(100, "fd88:1::2", 101, "fd10:1::2")
	w.seen(100, "fd88:1::3", 101, "fd10:1::3")
}

// partBolt takes that away.
func (w *world) partBolt() {
	for a, e := range w.endpoints {
		if a.VNI == 100 && e.Home.IP.IsValid() {
			delete(w.endpoints, a)
		}
	}
}

// TestLinkTraffic: real traffic over a translated Link between two Domains with
// the same addresses, on one node and across two, in both directions.
func TestLinkTraffic(t *testing.T) {
	w := twoDomains(t)
	for _, n := range w.nodes {
		n.record()
	}
	for _, to := range []string{"10.88.0.2", "10.88.0.3", "fd88:1::2", "fd88:1::3"} {
		t.Run("ping/"+to, func(t *testing.T) {
			sh(t, "ip netns exec moire-dp-acme-web ping -c 2 -i 0.2 -W 1 %s", to)
			sh(t, "ip netns exec moire-dp-acme-web ping -c 2 -i 0.2 -W 1 -s 8000 %s", to)
		})
	}
	for _, ns := range []string{"moire-dp-bolt-db", "moire-dp-bolt-near"} {
		for _, to := range []string{"10.77.0.2", "fd77:1::2"} {
			t.Run("back/"+ns+"/"+to, func(t *testing.T) {
				sh(t, "ip netns exec %s ping -c 2 -i 0.2 -W 1 %s", ns, to)
			})
		}
	}
	for _, c := range []struct{ ns, at, as, from string }{
		{"bolt-db", "10.1.0.2", "10.88.0.2", "10.77.0.2"}, {"bolt-near", "10.1.0.3", "10.88.0.3", "10.77.0.2"},
		{"bolt-db", "fd10:1::2", "fd88:1::2", "fd77:1::2"}, {"bolt-near", "fd10:1::3", "fd88:1::3", "fd77:1::2"},
	} {
		t.Run("transfer/"+c.as, func(t *testing.T) { transfer(t, "moire-dp-acme-web", "moire-dp-"+c.ns, c.at, c.as, c.from) })
	}
	sees := func(node string, kind record.Kind, from, to string) record.Record {
		return w.nodes[node].find(fmt.Sprint(kind, " ", from, " -> ", to), func(r record.Record) bool {
			return r.Kind == kind && r.Protocol == "tcp" && r.Source.Workload == from && r.Destination.Workload == to
		})
	}
	r := sees("b", record.Started, "web", "db")
	if !strings.HasPrefix(r.TranslatedSource, "10.77.0.2:") && !strings.HasPrefix(r.TranslatedSource, "[fd77:1::2]:") ||
		!strings.HasPrefix(r.TranslatedDestination, "10.1.0.2:") && !strings.HasPrefix(r.TranslatedDestination, "[fd10:1::2]:") ||
		r.Source.VNI != 100 || r.Source.Project != "acme" || r.Destination.Project != "bolt" || r.Destination.Domain != "d-bolt" ||
		r.Observer != record.AtDestination || r.Rule != "default/bolt/net/open" {
		t.Errorf("wrong record %+v", r)
	}
	if r := sees("a", record.Started, "web", "db"); r.Observer != record.AtSource || r.Rule != "default/acme/net/open" || r.TranslatedSource != "" {
		t.Errorf("wrong record %+v", r)
	}
	if r := sees("a", record.Started, "web", "near"); r.Observer != record.AtBoth || r.IngressRule != "default/bolt/net/open" {
		t.Errorf("wrong record %+v", r)
	}
}

// transfer sends bytes there and back and compares them; the server, at `at`,
// must see the client at from.
func transfer(t *testing.T, client, server, at, as, from string) {
	t.Helper()
	sent := make([]byte, 8<<20)
	rand.Read(sent)
	var l net.Listener
	inNetns(t, server, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(at, "5555"))
		return err
	})
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		if a := netip.MustParseAddrPort(c.RemoteAddr().String()).Addr(); a != netip.MustParseAddr(from) {
			err = fmt.Errorf("the server saw %s, want %s", a, from)
		}
		_, copied := io.Copy(c, c)
		done <- errors.Join(err, copied)
	}()
	defer func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	c := dialPort(t, client, "tcp", as, "5555").(*net.TCPConn)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		c.Write(sent)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(sent, got) {
		t.Errorf("%d of %d bytes came back right: %v", len(got), len(sent), err)
	}
}

// dialPort opens a connection from a namespace.
func dialPort(t *testing.T, ns, network, addr, port string) (c net.Conn) {
	t.Helper()
	inNetns(t, ns, func() (err error) {
		c, err = (&net.Dialer{Timeout: 3 * time.Second}).Dial(network, net.JoinHostPort(addr, port))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// refused reports whether a datagram to a closed port is answered with an ICMP
// error that the sender's socket takes for its own.
func refused(t *testing.T, ns, to string) bool {
	c := dialPort(t, ns, "udp", to, "9")
	c.SetDeadline(time.Now().Add(3 * time.Second))
	c.Write([]byte("x"))
	_, err := c.Read(make([]byte, 10))
	return errors.Is(err, unix.ECONNREFUSED)
}

// TestLinkErrors: ICMP errors about a translated packet reach its sender, and
// say what the sender knows.
func TestLinkErrors(t *testing.T) {
	twoDomains(t)
	for _, c := range [][2]string{
		{"acme-web", "10.88.0.2"}, {"acme-web", "10.88.0.3"}, {"acme-web", "fd88:1::2"}, {"acme-web", "fd88:1::3"},
		{"bolt-db", "10.77.0.2"}, {"bolt-db", "fd77:1::2"}, {"bolt-near", "10.77.0.2"}, {"bolt-near", "fd77:1::2"},
	} {
		if !refused(t, "moire-dp-"+c[0], c[1]) {
			t.Errorf("%s to %s: no word of the closed port", c[0], c[1])
		}
	}
}

// TestLinkWithdrawn: what a Link carried is cut at once on both nodes, and goes
// on when it is back.
func TestLinkWithdrawn(t *testing.T) {
	w := twoDomains(t)
	echoServer(t, "moire-dp-bolt-db", "10.1.0.2")
	echoServer(t, "moire-dp-bolt-near", "10.1.0.3")
	for _, to := range []string{"10.88.0.2", "10.88.0.3"} {
		c := dial(t, "moire-dp-acme-web", "tcp", to)
		if got := say(c, "one", time.Second); got != "one" {
			t.Fatalf("heard %q", got)
		}
		w.partBolt()
		w.apply()
		if got := say(c, "two", time.Second); got != "" {
			t.Errorf("%s still answers: %q", to, got)
		}
		w.joinBolt()
		w.apply()
		if got := say(c, "", 5*time.Second); got != "two" {
			t.Errorf("%s: the session does not go on: %q", to, got)
		}
	}
}

// say sends something and returns what is heard in that time.
func say(c net.Conn, what string, in time.Duration) string {
	c.SetDeadline(time.Now().Add(in))
	c.Write([]byte(what))
	b := make([]byte, 100)
	n, _ := c.Read(b)
	return string(b[:n])
}

// TestLinkPolicy: each side judges with the peer as it sees it.
func TestLinkPolicy(t *testing.T) {
	w := twoDomains(t)
	deny := func(id policy.RuleID, p policy.Peer) policy.Set {
		s := open("x")
		s.Rules = []policy.Rule{{ID: id, Tier: policy.Project, Action: policy.Deny, Peers: []policy.Peer{p}}}
		return s
	}
	cidr := func(s string) policy.Peer { return policy.Peer{Anyone: true, CIDR: netip.MustParsePrefix(s)} }
	ping := func(to string) error {
		_, err := shell("ip netns exec moire-dp-acme-web ping -c 1 -W 1 %s", to)
		return err
	}
	egress := snapshot.PolicyKey{VNI: 100, Identity: 11, Direction: policy.Egress}
	ingress := snapshot.PolicyKey{VNI: 101, Identity: 21, Direction: policy.Ingress}
	for _, c := range []struct {
		name string
		at   snapshot.PolicyKey
		peer policy.Peer
		ok   bool
	}{
		{"egress by address seen", egress, cidr("10.88.0.2/32"), false},
		{"egress by address there", egress, cidr("10.1.0.2/32"), true},
		{"egress by identity", egress, policy.Peer{Identities: []policy.Identity{21}}, false},
		{"ingress by address seen", ingress, cidr("10.77.0.2/32"), false},
		{"ingress by address there", ingress, cidr("10.1.0.2/32"), true},
		{"ingress by identity", ingress, policy.Peer{Identities: []policy.Identity{11}}, false},
	} {
		old := w.policies[c.at]
		w.policies[c.at] = deny("no", c.peer)
		w.apply()
		if err := ping("10.88.0.2"); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		w.policies[c.at] = old
	}
	w.apply()
	time.Sleep(10 * time.Millisecond)
	if err := ping("10.88.0.2"); err != nil {
		t.Error(err)
	}
}
