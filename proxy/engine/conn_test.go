package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func dial(t testing.TB, addr netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// in has f run by the loop, and waits for it.
func in(l *Loop, f func()) {
	done := make(chan bool)
	l.Post(func() { f(); close(done) })
	<-done
}

// until waits for something to be true in the loop.
func until(t testing.TB, l *Loop, what string, is func() bool) {
	t.Helper()
	for range 2000 {
		var yes bool
		if in(l, func() { yes = is() }); yes {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

// owner is told.
type owner func(c *Conn)

func (o owner) Ready(c *Conn) { o(c) }

// pattern is n bytes of an endless text from at, that no shift of it looks like.
func pattern(at, n int) []byte {
	b := make([]byte, 0, n+8)
	for i := at / 4; len(b) < n+4; i++ {
		b = binary.BigEndian.AppendUint32(b, uint32(i))
	}
	return b[at%4:][:n]
}

func TestInputIsBoundedWhenNobodyConsumes(t *testing.T) {
	var c *Conn
	l, addr := serve(t, func(l *Loop, fd int, peer netip.AddrPort) {
		c, _ = l.Adopt(fd, netip.AddrPort{}, peer, owner(func(*Conn) {}))
	})
	peer := dial(t, addr)
	const all = 24 << 20
	go func() {
		peer.Write(pattern(0, all))
		peer.CloseWrite()
	}()
	until(t, l, "full", func() bool { return c != nil && c.In.Len() >= readLimit })
	time.Sleep(100 * time.Millisecond)
	got := 0
	for got < all {
		until(t, l, "more input", func() bool {
			n := c.In.Len()
			if n > readLimit+2*64*ringBuffer {
				t.Errorf("%d bytes of input", n)
			}
			if n == 0 {
				return false
			}
			if got%5 > 0 { // not all of it
				n = max(n/2, 1)
			}
			if !bytes.Equal(c.In.Bytes()[:n], pattern(got, n)) {
				t.Fatalf("other bytes after %d", got)
			}
			got += n
			c.Consume(n)
			return true
		})
	}
	until(t, l, "the end", func() bool { return c.EOF && c.In.Len() == 0 && c.Err == 0 })
}

// TestSmallAndLargeInTurn makes a connection go from small input to large and
// back again and again.
func TestSmallAndLargeInTurn(t *testing.T) {
	_, addr := echoServer(t)
	peer := dial(t, addr)
	got := make([]byte, 300<<10)
	at := 0
	for round := range 12 {
		for range 40 {
			exchange(t, peer, at, 1+at%300, got)
			at += 1 + at%300
		}
		n := []int{5000, 100 << 10, 300 << 10}[round%3]
		exchange(t, peer, at, n, got)
		at += n
	}
}

func exchange(t *testing.T, peer *net.TCPConn, at, n int, got []byte) {
	t.Helper()
	go peer.Write(pattern(at, n))
	if _, err := io.ReadFull(peer, got[:n]); err != nil || !bytes.Equal(got[:n], pattern(at, n)) {
		t.Fatalf("%d bytes after %d: %v", n, at, err)
	}
}

// TestOutputOfManyStaysWhole writes small pieces to many at once, who read
// slowly: memory that is being sent from must not change.
func TestOutputOfManyStaysWhole(t *testing.T) {
	const all, peers = 1 << 20, 8
	type writer struct {
		c    *Conn
		sent int
	}
	var writers []*writer
	more := func(w *writer) {
		for w.sent < all && w.c.Room() >= 1000 {
			w.c.Write(pattern(w.sent, min(1000, all-w.sent)))
			w.sent += min(1000, all-w.sent)
		}
		if w.sent < all {
			w.c.Starved = true
		} else {
			w.c.CloseSoon()
		}
	}
	l, addr := serve(t, func(l *Loop, fd int, peer netip.AddrPort) {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10)
		w := &writer{}
		w.c, _ = l.Adopt(fd, netip.AddrPort{}, peer, owner(func(*Conn) { more(w) }))
		writers = append(writers, w)
	})
	var conns []*net.TCPConn
	for range peers {
		conns = append(conns, dial(t, addr))
	}
	until(t, l, "all are there", func() bool { return len(writers) == peers })
	// A few bytes to each in one turn, again and again, and then all there is.
	for range 50 {
		in(l, func() {
			for _, w := range writers {
				w.c.Write(pattern(w.sent, 100))
				w.sent += 100
			}
		})
	}
	in(l, func() {
		for _, w := range writers {
			more(w)
		}
	})
	until(t, l, "blocked", func() bool { return writers[0].c.BlockedAt != 0 })
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			if i%2 == 0 {
				time.Sleep(50 * time.Millisecond)
			}
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, pattern(0, all)) {
				t.Errorf("peer %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
}

// TestEndsOfEveryKind makes thousands of short connections that end in every
// way, several at a time: every one that is not cut off gets its own answer,
// and no descriptor stays.
func TestEndsOfEveryKind(t *testing.T) {
	var open atomic.Int64
	l, addr := serve(t, func(l *Loop, fd int, peer netip.AddrPort) {
		open.Add(1)
		var c *Conn
		c, _ = l.Adopt(fd, netip.AddrPort{}, peer, owner(func(*Conn) {
			if c.Closed() {
				return
			}
			if b := c.In.Bytes(); len(b) >= 8 {
				for range 1 + b[7]%5 {
					c.Write(b[:8])
				}
				switch b[7] % 4 {
				case 0:
					c.Abort()
				case 1:
					c.Close()
				case 2:
					c.CloseSoon()
				case 3:
					c.Write(make([]byte, 200<<10)) // more than a socket takes
					c.CloseSoon()
				}
				open.Add(-1)
			} else if c.EOF || c.Broken() {
				c.Close()
				open.Add(-1)
			}
		}))
	})
	before := descriptors(t)
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for i := range 250 {
				if err := shortly(addr, uint64(k)<<32|uint64(i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	until(t, l, "all ended", func() bool { return open.Load() == 0 && descriptors(t) <= before })
}

// shortly makes one connection; what it does depends on id.
func shortly(addr netip.AddrPort, id uint64) error {
	nc, err := net.Dial("tcp", addr.String())
	if err != nil {
		return err
	}
	c := nc.(*net.TCPConn)
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	word := binary.BigEndian.AppendUint64(nil, id)
	switch id % 7 {
	case 0: // nothing at all
		return nil
	case 1:
		c.SetLinger(0)
		c.Write(word[:4])
		return nil
	case 2:
		c.SetLinger(0)
		c.Write(word)
		return nil
	}
	c.Write(word)
	got := make([]byte, 8)
	_, err = io.ReadFull(c, got)
	if err == nil && !bytes.Equal(got, word) {
		return fmt.Errorf("%x got the answer of %x", word, got)
	}
	if err != nil && word[7]%4 == 2 {
		return fmt.Errorf("%x: %w", word, err)
	}
	return nil
}

func descriptors(t testing.TB) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestAPeerThatDiesWhileItIsWrittenTo is told to the owner as an error.
func TestAPeerThatDiesWhileItIsWrittenTo(t *testing.T) {
	var conns []*Conn
	failed := 0
	l, addr := serve(t, func(l *Loop, fd int, peer netip.AddrPort) {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10)
		c, _ := l.Adopt(fd, netip.AddrPort{}, peer, owner(func(c *Conn) {
			if c.Err != 0 && !c.Closed() {
				failed++
				c.Close()
			}
		}))
		conns = append(conns, c)
	})
	var peers []*net.TCPConn
	for range 6 {
		c := dial(t, addr)
		c.SetReadBuffer(4 << 10)
		peers = append(peers, c)
	}
	until(t, l, "all are there", func() bool { return len(conns) == len(peers) })
	until(t, l, "all blocked", func() bool {
		all := true
		for _, c := range conns {
			if c.BlockedAt == 0 || l.Now-c.BlockedAt < 1e6 {
				c.Offer(make([]byte, 4000))
				all = false
			}
		}
		return all
	})
	in(l, func() { conns[5].Close(); conns[4].Abort() })
	for _, c := range peers {
		c.SetLinger(0)
		c.Close()
	}
	until(t, l, "all know", func() bool { return failed == 4 })
}

// TestAListeningSocketGoesToAnother has a row of loops take over one listening
// socket under load: every connection is served by one of them.
func TestAListeningSocketGoesToAnother(t *testing.T) {
	fd, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	addr := LocalAddr(fd)
	var stop atomic.Bool
	var served atomic.Int64
	var wg sync.WaitGroup
	close := greet(t, fd)
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				c := dial(t, addr)
				if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
					t.Errorf("%q, %v", got, err)
					return
				}
				c.Close()
				served.Add(1)
			}
		})
	}
	for range 6 {
		time.Sleep(20 * time.Millisecond)
		next, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		closeNext := greet(t, next)
		close()
		fd, close = next, closeNext
	}
	stop.Store(true)
	wg.Wait()
	if served.Load() < 100 {
		t.Errorf("%d served", served.Load())
	}
}

// greet runs a Loop that says hello to who comes to fd, until the test ends or
// the listener is closed by what is returned.
func greet(t *testing.T, fd int) func() {
	l, err := New(Options{Ring: kind})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := l.Accept(fd, func(fd int, peer netip.AddrPort) {
		if c, err := l.Adopt(fd, netip.AddrPort{}, peer, owner(func(*Conn) {})); err == nil {
			c.Write([]byte("hello"))
			c.CloseSoon()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		ln.Close()
		l.Close()
	})
	return func() { in(l, ln.Close) }
}
