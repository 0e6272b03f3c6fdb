package datapath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// longStream sends random bytes until ctx ends, expects the same ones back, and
// returns how many there were.
func longStream(ctx context.Context, c net.Conn, seed uint64) (uint64, error) {
	var sent atomic.Uint64
	out := make(chan error, 1)
	go func() {
		r, b := rand.NewChaCha8([32]byte{byte(seed)}), make([]byte, 4096)
		for ctx.Err() == nil {
			r.Read(b)
			n, err := c.Write(b)
			sent.Add(uint64(n))
			if err != nil {
				out <- err
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
		out <- c.(*net.TCPConn).CloseWrite()
	}()
	r, b, want, n := rand.NewChaCha8([32]byte{byte(seed)}), make([]byte, 4096), make([]byte, 4096), uint64(0)
	for {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		k, err := io.ReadFull(c, b)
		n += uint64(k)
		r.Read(want)
		if string(b[:k]) != string(want[:k]) {
			return n, errors.New("other bytes came back")
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, fmt.Errorf("after %d bytes: %w", n, err)
		}
	}
	if err := <-out; err != nil {
		return n, err
	}
	if n != sent.Load() {
		return n, fmt.Errorf("%d bytes of %d came back", n, sent.Load())
	}
	return n, nil
}

// TestServiceChanges: a backend comes, drains and goes, a hundred changes, under
// long streams and short sessions of TCP and UDP: none fails, every byte is right.
func TestServiceChanges(t *testing.T) {
	w := shop(t)
	w.workload("b", "acme", "b3", 100, 14, "10.1.0.5", "fd10:1::5")
	whoami(t, "moire-dp-acme-b3", "acme/b3", 8080)
	for _, b := range []string{"b1", "b2"} {
		answering(t, "moire-dp-acme-"+b, ":8081", sameBytes)
	}
	w.service("bulk", 100, policy.TCP, "10.1.0.100:81", "10.1.0.3:8081", "10.1.0.4:8081")
	w.service("bulk", 100, policy.TCP, "[fd10:1::100]:81", "[fd10:1::3]:8081", "[fd10:1::4]:8081")
	w.apply()
	// Linux takes up to a second to see that an interface is up.
	sh(t, "ip netns exec moire-dp-acme-web ping -c 1 -W 3 fd10:1::5 && ip netns exec moire-dp-acme-b3 ping -c 1 -W 3 fd10:1::2")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var streams, sessions sync.WaitGroup
	var bytes, calls atomic.Uint64
	for i := range 8 {
		at := []string{"10.1.0.100:81", "[fd10:1::100]:81"}[i%2]
		var c net.Conn
		inNetns(t, "moire-dp-acme-web", func() (err error) {
			c, err = (&net.Dialer{Timeout: 2 * time.Second}).Dial("tcp", at)
			return err
		})
		defer c.Close()
		streams.Go(func() {
			n, err := longStream(ctx, c, uint64(i))
			bytes.Add(n)
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
		})
	}
	var draining sync.RWMutex // a backend goes when the sessions that it had are over
	for i := range 4 {
		network, at := []string{"tcp", "udp"}[i%2], []string{"10.1.0.100:80", "[fd10:1::100]:80"}[i/2]
		sessions.Go(func() {
			for ctx.Err() == nil {
				draining.RLock()
				var c net.Conn
				err := func() (err error) {
					inNetns(t, "moire-dp-acme-web", func() error {
						c, err = (&net.Dialer{Timeout: 2 * time.Second}).Dial(network, at)
						return nil
					})
					if err == nil {
						_, err = again(c)
						c.Close()
					}
					return err
				}()
				draining.RUnlock()
				time.Sleep(10 * time.Millisecond)
				if calls.Add(1); err != nil {
					t.Errorf("%s %s: %v", network, at, err)
				}
			}
		})
	}
	drained := func() { // all that began before are over
		draining.Lock()
		defer draining.Unlock()
	}
	set := func(third ...string) {
		for _, proto := range []uint8{policy.TCP, policy.UDP} {
			w.service("api", 100, proto, "10.1.0.100:80", append([]string{"10.1.0.3:8080", "10.1.0.4:8080"}, third...)...)
			for i := range third {
				third[i] = strings.Replace(third[i], "10.1.0.5", "[fd10:1::5]", 1)
			}
			w.service("api", 100, proto, "[fd10:1::100]:80", append([]string{"[fd10:1::3]:8080", "[fd10:1::4]:8080"}, third...)...)
			for i := range third {
				third[i] = strings.Replace(third[i], "[fd10:1::5]", "10.1.0.5", 1)
			}
		}
		w.service("bulk", 100, policy.TCP, "10.1.0.100:81", append([]string{"10.1.0.3:8081", "10.1.0.4:8081"}, third...)...)
		w.apply()
	}
	for range 34 {
		set("10.1.0.5:8080")
		time.Sleep(20 * time.Millisecond)
		set("leaving", "10.1.0.5:8080")
		drained()
		set()
	}
	cancel()
	sessions.Wait()
	streams.Wait()
	t.Logf("102 changes: %d bytes in 8 streams, %d sessions", bytes.Load(), calls.Load())
	if calls.Load() < 200 || bytes.Load() < 1e6 {
		t.Error("too little happened to mean anything")
	}
}

// TestServiceClash: a session to a backend, and one to a Service in front of it
// from the same port, are two; so are those to two Services.
func TestServiceClash(t *testing.T) {
	w := shop(t)
	w.service("one", 100, policy.TCP, "10.1.0.101:80", "10.1.0.3:8080")
	w.service("two", 100, policy.TCP, "10.1.0.102:80", "10.1.0.3:8080")
	w.service("one", 100, policy.UDP, "10.1.0.101:80", "10.1.0.3:8080")
	w.service("two", 100, policy.UDP, "10.1.0.102:80", "10.1.0.3:8080")
	w.apply()
	for _, network := range []string{"tcp", "udp"} {
		var all []net.Conn
		for _, at := range []string{"10.1.0.3:8080", "10.1.0.101:80", "10.1.0.102:80"} {
			inNetns(t, "moire-dp-acme-web", func() error {
				d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 1, 0, 2), Port: 5555}, Control: reuse}
				if network == "udp" {
					d.LocalAddr = &net.UDPAddr{IP: net.IPv4(10, 1, 0, 2), Port: 5555}
				}
				c, err := d.Dial(network, at)
				if err == nil {
					all = append(all, c)
					t.Cleanup(func() { c.Close() })
				}
				return err
			})
		}
		for range 3 {
			for _, c := range all {
				if who, err := again(c); err != nil || who != "acme/b1" {
					t.Errorf("%s to %s: %q %v", network, c.RemoteAddr(), who, err)
				}
			}
		}
	}
}

// TestServiceErrors: ICMP errors come to the caller as from the Service: a
// closed port of a backend, and what is too big for the way to it; fragments go
// where their first went.
func TestServiceErrors(t *testing.T) {
	w := shop(t)
	for vip, backend := range map[string]string{"10.1.0.103": "10.1.0.4", "fd10:1::103": "fd10:1::4"} {
		at, to := netip.MustParseAddr(vip), netip.MustParseAddr(backend)
		w.service("closed", 100, policy.UDP, netip.AddrPortFrom(at, 9).String(), netip.AddrPortFrom(to, 99).String())
		w.service("big", 100, policy.UDP, netip.AddrPortFrom(at, 80).String(), netip.AddrPortFrom(to, 8080).String())
	}
	w.apply()
	for _, at := range []string{"10.1.0.103", "fd10:1::103"} {
		_, who, err := call(t, "moire-dp-acme-web", "udp", net.JoinHostPort(at, "9"))
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: a closed port of a backend: %q %v", at, who, err)
		}
		c, who, err := call(t, "moire-dp-acme-web", "udp", net.JoinHostPort(at, "80"))
		if err != nil || who != "acme/b2" {
			t.Fatal(at, who, err)
		}
		if _, err := c.Write(make([]byte, 8000)); err != nil {
			t.Error(err)
		}
		if n, err := c.Read(make([]byte, 100)); err != nil || n == 0 {
			t.Errorf("%s: 8000 bytes in fragments: %v", at, err)
		}
	}
	// The overlay carries less than the interface of the caller claims.
	sh(t, "ip -n moire-dp-acme-web link set net0 mtu 1500 && ip -n moire-dp-a link set %s mtu 1500", w.nodes["a"].locals[0].Host)
	for _, at := range []string{"10.1.0.103", "fd10:1::103"} {
		c, who, err := call(t, "moire-dp-acme-web", "udp", net.JoinHostPort(at, "80"))
		if err != nil {
			t.Fatal(at, who, err)
		}
		c.Write(make([]byte, 1440)) // with headers more than 1450, and less than 1500
		time.Sleep(50 * time.Millisecond)
		if out := sh(t, "ip -n moire-dp-acme-web route get %s", at); !strings.Contains(out, "mtu 1450") {
			t.Errorf("path MTU to %s:\n%s", at, out)
		}
		again(c) // takes the error off the socket
		if who, err := again(c); err != nil {
			t.Error(at, who, err)
		}
	}
}

// TestServiceRestart: an agent that comes back writes nothing, and sessions go
// on; a row that somebody else changed is repaired, and the choice is right again.
func TestServiceRestart(t *testing.T) {
	w := shop(t)
	c, who, err := call(t, "moire-dp-acme-web", "udp", "10.1.0.100:80")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range w.nodes {
		n.Close()
		n.open()
		before := n.Writes()
		s := State{Snapshot: w.snapshot(n.name), Locals: n.locals}
		if err := errors.Join(n.Grow(s), n.Shrink(s)); err != nil {
			t.Fatal(err)
		}
		if got := n.Writes() - before; got != 0 {
			t.Errorf("a restart rewrote %d rows", got)
		}
	}
	if got, err := again(c); err != nil || got != who {
		t.Errorf("after the restart: %q %v", got, err)
	}
	n := w.nodes["a"]
	for k, row := range n.services.slots.rows {
		row.Backend[7] = 77
		if err := n.objects.Slots.Put(&k, &row); err != nil {
			t.Fatal(err)
		}
		break
	}
	for k := range n.services.backends.rows {
		if err := n.objects.Backends.Delete(&k); err != nil {
			t.Fatal(err)
		}
		break
	}
	s := State{Snapshot: w.snapshot("a"), Locals: n.locals}
	for range 2 {
		if err := errors.Join(n.Grow(s), n.Shrink(s)); err != nil {
			t.Fatal(err)
		}
	}
	before := n.Writes()
	if err := errors.Join(n.Grow(s), n.Shrink(s)); err != nil || n.Writes() != before {
		t.Errorf("not settled: %v, %d writes", err, n.Writes()-before)
	}
	if slots, backends := n.services.unknown(); len(slots)+len(backends) > 0 {
		t.Errorf("left over: %v %v", slots, backends)
	}
	for range 40 {
		if _, _, err := call(t, "moire-dp-acme-web", "tcp", "10.1.0.100:80"); err != nil {
			t.Error(err)
		}
	}
}

// TestServiceLink: a Service whose backend is in a linked Network, by the address
// that it has here.
func TestServiceLink(t *testing.T) {
	w := shop(t)
	// bolt/b2 is 10.9.0.4 for acme, and acme/web 10.9.0.2 for bolt.
	seen := func(vni snapshot.VNI, as string, home snapshot.Addr) {
		e := w.endpoints[home]
		e.Addr, e.Home = snapshot.Addr{VNI: vni, IP: netip.MustParseAddr(as)}, home
		w.endpoints[e.Addr] = e
	}
	seen(100, "10.9.0.4", snapshot.Addr{VNI: 101, IP: netip.MustParseAddr("10.1.0.4")})
	seen(101, "10.9.0.2", snapshot.Addr{VNI: 100, IP: netip.MustParseAddr("10.1.0.2")})
	for _, proto := range []uint8{policy.TCP, policy.UDP} {
		w.service("linked", 100, proto, "10.1.0.104:80", "10.9.0.4:8080")
	}
	w.apply()
	for _, network := range []string{"tcp", "udp"} {
		c, who, err := call(t, "moire-dp-acme-web", network, "10.1.0.104:80")
		if err != nil || who != "bolt/b2" {
			t.Fatalf("%s: %q %v", network, who, err)
		}
		if who, err = again(c); err != nil {
			t.Errorf("%s, again: %q %v", network, who, err)
		}
	}
}

// reuse lets several sockets have one port.
func reuse(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
}
