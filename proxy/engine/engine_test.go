package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// kind of the loops in this run of the suite.
var kind RingUse

// TestMain runs the suite with epoll, and once more with io_uring where the
// kernel allows it.
func TestMain(m *testing.M) {
	kind = RingOff
	if code := m.Run(); code != 0 {
		os.Exit(code)
	}
	l, err := New(Options{Ring: RingOn})
	if err != nil {
		fmt.Println("not with io_uring:", err)
		return
	}
	l.Close()
	kind = RingOn
	fmt.Println("with io_uring")
	os.Exit(m.Run())
}

// serve runs a Loop that accepts on a free port of loopback.
func serve(t *testing.T, take func(l *Loop, fd int, peer netip.AddrPort)) (*Loop, netip.AddrPort) {
	t.Helper()
	l, err := New(Options{Ring: kind})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	addr := LocalAddr(fd)
	ln, err := l.Accept(fd, func(fd int, peer netip.AddrPort) { take(l, fd, peer) })
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
	return l, addr
}

// echo is a connection whose task sends back what comes.
type echo struct {
	c *Conn
	t *Task
}

func (e *echo) Ready(*Conn) { e.t.Wake() }
func (e *echo) Abort()      { e.c.Close() }
func (e *echo) Run(t *Task) {
	for {
		for e.c.In.Len() > 0 && e.c.Room() > 0 {
			e.c.Consume(e.c.Offer(e.c.In.Bytes()))
		}
		if e.c.EOF && e.c.In.Len() == 0 || e.c.Broken() {
			e.c.CloseSoon()
			return
		}
		e.c.Starved = e.c.In.Len() > 0
		t.Park()
	}
}

func echoServer(t *testing.T) (*Loop, netip.AddrPort) {
	return serve(t, func(l *Loop, fd int, peer netip.AddrPort) {
		e := &echo{}
		c, err := l.Adopt(fd, netip.AddrPort{}, peer, e)
		if err != nil {
			return
		}
		e.c = c
		e.t = l.Go(e)
	})
}

func TestEchoKeepsEveryByteUnderBackPressure(t *testing.T) {
	_, addr := echoServer(t)
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make([]byte, 32<<20)
	rand.Read(sent)
	go func() {
		conn.Write(sent)
		conn.(*net.TCPConn).CloseWrite()
	}()
	time.Sleep(50 * time.Millisecond) // nobody reads for a while
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes came back, err %v", len(got), len(sent), err)
	}
}

func TestTimersFireInTime(t *testing.T) {
	l, _ := echoServer(t)
	got := make(chan time.Duration, 3)
	start := time.Now()
	l.Post(func() {
		for _, d := range []time.Duration{0, 30 * time.Millisecond, 70 * time.Millisecond} {
			l.Arm(&Timer{}, l.Now+int64(d), expire(func() { got <- d }))
		}
		off := &Timer{}
		l.Arm(off, l.Now+1e6, expire(func() { t.Error("a timer that was disarmed fired") }))
		l.Disarm(off)
	})
	for range 3 {
		d := <-got
		if late := time.Since(start) - d; late < 0 || late > 2*time.Second {
			t.Errorf("timer of %v was %v late", d, late)
		}
	}
}

type expire func()

func (f expire) Expire(*Timer) { f() }

type panics struct{ aborted chan bool }

func (p panics) Run(*Task) { panic("on purpose") }
func (p panics) Abort()    { p.aborted <- true }

func TestAPanicEndsItsTaskOnly(t *testing.T) {
	l, addr := echoServer(t)
	p := panics{make(chan bool, 1)}
	l.Post(func() { l.Go(p) })
	<-p.aborted
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	conn.Write([]byte("still here"))
	b := make([]byte, 10)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "still here" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestRoundTripDoesNotAllocate(t *testing.T) {
	_, addr := echoServer(t)
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 128)
	n := testing.AllocsPerRun(2000, func() {
		conn.Write(b)
		io.ReadFull(conn, b)
	})
	if n > 0 {
		t.Errorf("%v allocations for a round trip", n)
	}
}
