package datapath

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"
)

// often is how often a test repeats what it does: full times when MOIRE_LONG is
// set (make long), else few.
func often(full, few int) int {
	if os.Getenv("MOIRE_LONG") != "" {
		return full
	}
	return few
}

// bulk sends 32 MB by TCP from one namespace to another, as fast as it goes, and
// compares what arrives.
func bulk(t *testing.T, from, to, addr string) {
	t.Helper()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(rand.Uint32())
	}
	const blocks = 32
	var l net.Listener
	inNetns(t, to, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(addr, "5201"))
		return err
	})
	defer l.Close()
	type result struct {
		sum [sha256.Size]byte
		n   int64
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		c, err := l.Accept()
		if err != nil {
			done <- result{err: err}
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		h := sha256.New()
		r.n, r.err = io.Copy(h, c)
		h.Sum(r.sum[:0])
		done <- r
	}()
	began := time.Now()
	inNetns(t, from, func() error {
		c, err := (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", net.JoinHostPort(addr, "5201"))
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		for range blocks {
			if _, err := c.Write(block); err != nil {
				return err
			}
		}
		return nil
	})
	r := <-done
	if r.err != nil {
		t.Fatalf("after %d bytes to %s: %v", r.n, addr, r.err)
	}
	if want := sha256.Sum256(bytes.Repeat(block, blocks)); r.sum != want {
		t.Errorf("other bytes came to %s than were sent (%d of %d)", addr, r.n, blocks<<20)
	}
	t.Logf("%s: %.2f Gbit/s", addr, float64(r.n)*8/time.Since(began).Seconds()/1e9)
}

// datagrams sends datagrams of that size, one after the other, to an echo server
// and compares what comes back; one may be lost.
func datagrams(t *testing.T, from, to, addr string, size int) {
	t.Helper()
	echoServer(t, to, addr)
	c := dial(t, from, "udp", addr)
	lost := 0
	b, got := make([]byte, size), make([]byte, 65536)
	for n := range 50 {
		for i := range b {
			b[i] = byte(i * (n + 1))
		}
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		k, err := c.Read(got)
		if err != nil {
			if lost++; lost > 1 {
				t.Fatalf("datagram %d of %d bytes to %s: %v", n, size, addr, err)
			}
			continue
		}
		if !bytes.Equal(got[:k], b) {
			t.Fatalf("datagram %d of %d bytes to %s came back as another of %d bytes", n, size, addr, k)
		}
	}
}
