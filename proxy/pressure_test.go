package proxy

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/snapshot/l7"
)

// stream256 is 256 MB that differ everywhere.
type stream256 struct {
	left int
	r    *rand.ChaCha8
	sum  hash.Hash
}

func newStream256(size int) *stream256 {
	return &stream256{size, rand.NewChaCha8([32]byte{1}), sha256.New()}
}

func (s *stream256) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), s.left)
	s.left -= n
	s.r.Read(p[:n])
	s.sum.Write(p[:n])
	return n, nil
}

// slowly reads so that the sender has to wait now and then.
type slowly struct {
	r io.Reader
	n int
}

func (s *slowly) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if s.n += n; s.n > 16<<20 {
		s.n = 0
		time.Sleep(10 * time.Millisecond)
	}
	return n, err
}

// memory is the most heap and stack in use while it watches.
func memory(t *testing.T) (most func() uint64) {
	t.Helper()
	var stop atomic.Bool
	var top atomic.Uint64
	done := make(chan struct{})
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	base := m.HeapInuse + m.StackInuse
	go func() {
		defer close(done)
		for !stop.Load() {
			runtime.ReadMemStats(&m)
			top.Store(max(top.Load(), m.HeapInuse+m.StackInuse))
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return func() uint64 {
		stop.Store(true)
		<-done
		return max(top.Load(), base) - base
	}
}

// TestLargeBodiesInLittleMemory sends 16 MB (with MOIRE_LONG 256 MB) up and down
// at a time, to readers that are slow, through each pair of protocols; caller,
// proxy and endpoint together hold little of it.
func TestLargeBodiesInLittleMemory(t *testing.T) {
	size := 16 << 20
	if long() {
		size = 256 << 20
	}
	for _, up2 := range []bool{false, true} {
		for _, down2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("down2=%v,up2=%v", down2, up2), func(t *testing.T) {
				address := free(t)
				cfg := one(address, server2(t, func(w http.ResponseWriter, r *http.Request) {
					http.NewResponseController(w).EnableFullDuplex()
					io.Copy(w, &slowly{r: r.Body})
				}))
				if up2 {
					cfg.Clusters[0].Protocol = l7.HTTP2
				}
				start(t, cfg)
				most := memory(t)
				body := newStream256(size)
				resp, err := client(t, down2).Post("http://"+address+"/", "", struct{ io.Reader }{body})
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				sum := sha256.New()
				n, err := io.Copy(sum, &slowly{r: resp.Body})
				if err != nil || int(n) != size || [32]byte(sum.Sum(nil)) != [32]byte(body.sum.Sum(nil)) {
					t.Errorf("%d of %d bytes, %v", n, size, err)
				}
				if got := most(); got > 40<<20 {
					t.Errorf("%d MB in use", got>>20)
				} else {
					t.Logf("%d MB in use", got>>20)
				}
			})
		}
	}
}

// TestAReaderThatTakesNothing holds up the endpoint and not the proxy's memory;
// others go on.
func TestAReaderThatTakesNothing(t *testing.T) {
	for _, two := range []bool{false, true} {
		var sent atomic.Int64
		address := free(t)
		up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
			head, err := readHead1(r)
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
			if len(head) > 4 && head[:6] != "GET /l" {
				io.WriteString(c, "other")
				return
			}
			for b := make([]byte, 1<<16); ; {
				n, err := c.Write(b)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
		cfg := one(address, up)
		cfg.Listeners[0].Limits.Stall = l7.Duration(700 * time.Millisecond)
		p := start(t, cfg)
		c := dial(t, address)
		c.(*net.TCPConn).SetReadBuffer(4096)
		if two {
			w := newWire2(t, c, http2.Config{Client: true})
			w.ask(request2("GET", "/large"), true)
		} else {
			io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
		}
		last := int64(-1)
		eventually(t, "the endpoint is held up", func() bool {
			now := sent.Load()
			held := now > 0 && now == last
			last = now
			time.Sleep(40 * time.Millisecond)
			return held
		})
		if status, body, _ := get(t, client(t, two), "http://"+address+"/other"); status != 200 || body != "other" {
			t.Errorf("%d %q", status, body)
		}
		if sent.Load() > 32<<20 {
			t.Errorf("two=%v: %d MB were taken from the endpoint", two, sent.Load()>>20)
		}
		eventually(t, "it is given up", func() bool { return p.State().Clusters[0].Active == 0 })
	}
}

// TestMinimumRate: who sends or takes a byte now and then is not waited for, who
// is only slow is. It takes as long as the measure does, so only long tests do it.
func TestMinimumRate(t *testing.T) {
	if !long() {
		t.Log("left out: MOIRE_LONG is not set")
		return
	}
	address := free(t)
	cfg := one(address, server(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	start(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	trickle := func(each int) (string, time.Duration) {
		c := dial(t, address)
		c.SetDeadline(time.Now().Add(40 * time.Second))
		began := time.Now()
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000\r\n\r\n")
		go func() {
			for sent := 0; sent < 8000 && ctx.Err() == nil; sent += each {
				if _, err := c.Write(make([]byte, each)); err != nil {
					return
				}
				time.Sleep(500 * time.Millisecond)
			}
		}()
		b, _ := io.ReadAll(io.LimitReader(c, 12))
		return string(b), time.Since(began)
	}
	var wg sync.WaitGroup
	for each, want := range map[int]string{250: "HTTP/1.1 200", 10: "HTTP/1.1 408"} {
		wg.Go(func() {
			if got, took := trickle(each); got != want || took > 25*time.Second {
				t.Errorf("%d bytes a second: %q after %v", 2*each, got, took)
			}
		})
	}
	wg.Wait()
}
