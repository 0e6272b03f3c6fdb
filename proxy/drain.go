package proxy

import (
	"context"
	"net/netip"
	"syscall"
	"time"
)

// Drain stops accepting, lets what goes on end, and returns when nothing is
// left or ctx ends; then Run can be ended. Connections that are idle get one
// more answer, with the word that it is the last, so that no request meets a
// closed door.
func (p *Proxy) Drain(ctx context.Context) {
	p.draining.Store(true)
	for _, w := range p.workers {
		w.loop.Post(w.drain)
	}
	for {
		left := 0
		for _, w := range p.workers {
			n := make(chan int, 1)
			w.loop.Post(func() { n <- len(w.conns) })
			select {
			case v := <-n:
				left += v
			case <-ctx.Done():
			}
		}
		if left == 0 || ctx.Err() != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	for _, w := range p.workers {
		w.loop.Post(w.lastWords)
	}
}

// drain is told to everybody.
func (w *worker) drain() {
	w.draining = true
	for _, a := range w.listeners {
		a.stop()
	}
	for _, h := range w.homes { // their sockets are the agent's: another process accepts on them
		h.stop()
	}
	w.changing.begin()
}

// lastWords ends what is left.
func (w *worker) lastWords() {
	w.closing = true
	w.conns.all(func(c conn) { c.drain(true) })
}

// shut frees what a worker has after its loop ended.
func (w *worker) shut() {
	for _, a := range w.listeners {
		a.stop()
	}
	for _, h := range w.homes {
		h.stop()
		syscall.Close(h.namespace)
	}
	w.loop.Close()
}

func closeAll(opened []map[netip.AddrPort][]int) {
	for _, m := range opened {
		for _, fds := range m {
			for _, fd := range fds {
				syscall.Close(fd)
			}
		}
	}
}

// Sockets are the listening sockets by address, for a successor. They stay open here.
func (p *Proxy) Sockets(ctx context.Context) map[netip.AddrPort][]int {
	out := map[netip.AddrPort][]int{}
	for _, w := range p.workers {
		got := make(chan map[netip.AddrPort][]int, 1)
		w.loop.Post(func() {
			m := map[netip.AddrPort][]int{}
			for addr, a := range w.listeners {
				for _, s := range a.socks {
					m[addr] = append(m[addr], s.FD())
				}
			}
			got <- m
		})
		select {
		case m := <-got:
			for addr, fds := range m {
				out[addr] = append(out[addr], fds...)
			}
		case <-ctx.Done():
			return out
		}
	}
	return out
}
