package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/proxy/http2"
)

// TestAThrong: of many requests on few connections, to endpoints that do not answer
// yet, only some are begun; when answers come all are, whole; those of a connection
// that asks for little are begun at once.
func TestAThrong(t *testing.T) {
	var came atomic.Int32
	let := make(chan struct{})
	up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			if _, err := readHead1(r); err != nil {
				return
			}
			came.Add(1)
			<-let
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		}
	})
	address := free(t)
	p := start(t, one(address, up))
	type asked struct {
		w *wire2
		s []*http2.Stream
	}
	var all []asked
	const callers, each = 25, 100
	for range callers {
		a := asked{w: newWire2(t, dial(t, address), http2.Config{Client: true})}
		for range each {
			a.s = append(a.s, a.w.ask(request2("GET", "/"), true))
		}
		a.w.flush()
		all = append(all, a)
	}
	eventually(t, "those that may have begun", func() bool { return came.Load() >= throng })
	time.Sleep(200 * time.Millisecond)
	if n := came.Load(); n > throng+callers*modest+callers*2 {
		t.Errorf("%d of %d requests were begun", n, callers*each)
	}
	// Somebody who asks for one thing does not wait for the others.
	before := came.Load()
	c := dial(t, address)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	w := newWire2(t, dial(t, address), http2.Config{Client: true})
	w.ask(request2("GET", "/"), true)
	w.flush()
	eventually(t, "the modest are served", func() bool { return came.Load() >= before+2 })
	// One connection leaves, some of its requests not begun.
	all[0].w.c.Close()
	close(let)
	for _, a := range all[1:] {
		left := map[*http2.Stream]int{}
		for _, s := range a.s {
			left[s] = 5
		}
		for len(left) > 0 {
			ev := a.w.next()
			if ev.Kind == http2.NeedMore || ev.Kind == http2.Reset {
				t.Fatalf("%d answers did not come: %+v", len(left), ev)
			}
			if _, asked := left[ev.Stream]; !asked {
				continue // of the connection
			}
			if left[ev.Stream] -= len(ev.Data); ev.End {
				if left[ev.Stream] != 0 {
					t.Fatal("an answer is not whole")
				}
				delete(left, ev.Stream)
			}
		}
	}
	eventually(t, "nothing goes on", func() bool { return p.State().Clusters[0].Active == 0 })
}
