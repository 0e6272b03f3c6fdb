package proxy

import (
	"bufio"
	"crypto/sha256"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// passed is a Config that passes TCP connections on.
func passed(address, endpoint string) *l7.Config {
	cfg := one(address, endpoint)
	cfg.Listeners[0].Protocol, cfg.Routes[0].Kind, cfg.Clusters[0].Protocol = l7.TCP, l7.TCPRoute, l7.TCP
	return cfg
}

// openPipes counts the pipes of this process, and its descriptors.
func openPipes(t testing.TB) (pipes, all int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			pipes++
		}
	}
	return pipes, len(list)
}

// whole sends random bytes and ends its side, and hashes what comes meanwhile.
func whole(c net.Conn, first []byte, size int) (sent, got [32]byte, n int64, err error) {
	body := newStream256(size)
	body.sum.Write(first)
	var wg sync.WaitGroup
	wg.Go(func() {
		c.Write(first)
		io.Copy(struct{ io.Writer }{c}, body)
		c.(*net.TCPConn).CloseWrite()
	})
	sum := sha256.New()
	n, err = io.Copy(sum, &slowly{r: c})
	wg.Wait()
	return [32]byte(body.sum.Sum(nil)), [32]byte(sum.Sum(nil)), n, err
}

// TestMuchIsPassedOnWithinTheKernel: large streams both ways at a time, to readers
// that are slow, are whole; what little goes before, between and after them is,
// too; each side ends by itself; nothing is left.
func TestMuchIsPassedOnWithinTheKernel(t *testing.T) {
	const size = 10 << 20
	type side struct {
		sent, got [32]byte
		n         int64
		err       error
	}
	ends := make(chan side, 10)
	up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
		hello := make([]byte, 5)
		io.ReadFull(r, hello)
		c.Write(hello)
		var s side
		s.sent, s.got, s.n, s.err = whole(c, hello, size)
		ends <- s
	})
	address := free(t)
	p := start(t, passed(address, up))
	before, _ := openPipes(t)
	var most atomic.Int32
	stop := make(chan struct{})
	go func() {
		for {
			n, _ := openPipes(t)
			most.Store(max(most.Load(), int32(n-before)))
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			c := dial(t, address)
			io.WriteString(c, "hello")
			b := make([]byte, 5)
			if _, err := io.ReadFull(c, b); err != nil {
				t.Error(err)
			}
			_, _, n, err := whole(c, nil, size)
			if n != size+5 || err != nil {
				t.Errorf("%d of %d bytes, %v", n, size+5, err)
			}
		})
	}
	wg.Wait()
	// All sides sent the same bytes, the endpoint's with five before.
	want := sha256.New()
	io.Copy(want, newStream256(size))
	for range 2 {
		if s := <-ends; s.err != nil || s.n != size || s.got != [32]byte(want.Sum(nil)) {
			t.Errorf("the endpoint got %d of %d bytes, %v", s.n, size, s.err)
		}
	}
	close(stop)
	if most.Load() < 2 {
		t.Errorf("at most %d ends of pipes were in use", most.Load())
	}
	eventually(t, "nothing is left", func() bool {
		n, _ := openPipes(t)
		c := p.State().Clusters[0]
		return n == before && c.Connections == 0 && c.Active == 0
	})
}

// TestAPipeWithAReaderThatTakesNothing holds up the endpoint; what was on its way
// when the reader leaves is nobody's.
func TestAPipeWithAReaderThatTakesNothing(t *testing.T) {
	var sent atomic.Int64
	up, _ := endpoint1(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		for b := make([]byte, 1<<16); ; {
			n, err := c.Write(b)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	address := free(t)
	p := start(t, passed(address, up))
	before, _ := openPipes(t)
	c := dial(t, address)
	c.(*net.TCPConn).SetReadBuffer(64 << 10)
	read := int64(0)
	eventually(t, "a pipe is used", func() bool {
		n, _ := io.CopyN(io.Discard, c, 256<<10)
		read += n
		now, _ := openPipes(t)
		return now > before
	})
	last := int64(-1)
	eventually(t, "the endpoint is held up", func() bool {
		now := sent.Load()
		held := now == last
		last = now
		time.Sleep(100 * time.Millisecond)
		return held
	})
	if got := sent.Load() - read; got > 16<<20 {
		t.Errorf("%d MB more were taken from the endpoint", got>>20)
	}
	c.Close()
	eventually(t, "it ends", func() bool { n, _ := openPipes(t); return n == before && p.State().Clusters[0].Active == 0 })
}

// TestAPipeThatBreaks: a stream whose endpoint broke off does not look whole.
func TestAPipeThatBreaks(t *testing.T) {
	up, _ := endpoint1(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		io.Copy(c, newStream256(4<<20))
		c.(*net.TCPConn).SetLinger(0)
	})
	address := free(t)
	start(t, passed(address, up))
	c := dial(t, address)
	if n, err := io.Copy(io.Discard, c); err == nil {
		t.Errorf("after %d bytes it looks whole", n)
	}
}

// TestMuchThenLittle: a tunnel in which little is said after much is as quick as
// before, and needs no pipe.
func TestMuchThenLittle(t *testing.T) {
	up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
		io.Copy(c, newStream256(8<<20))
		io.Copy(struct{ io.Writer }{c}, r) // without a pipe of its own
	})
	address := free(t)
	start(t, passed(address, up))
	before, _ := openPipes(t)
	c := dial(t, address)
	io.CopyN(io.Discard, c, 8<<20)
	b := make([]byte, 4)
	for i := range 200 {
		io.WriteString(c, "ping")
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
			t.Fatalf("%d: %q %v", i, b, err)
		}
	}
	eventually(t, "there is no pipe", func() bool { n, _ := openPipes(t); return n == before })
}
