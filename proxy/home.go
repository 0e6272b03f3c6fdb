package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"golang.org/x/sys/unix"

	"moire.dev/moire/proxy/door"
	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/telemetry"
)

// home is a network namespace in which a worker has sockets.
type home struct {
	w         *worker
	name      string
	namespace int // descriptor, of this worker alone; -1: it is no more
	inode     uint64
	socks     []*engine.Listener
	// older listened before socks did, and do until their last connections are
	// taken.
	older []*engine.Listener
	timer engine.Timer
	open  int // connections
}

// farewell is how long sockets are still accepted on after others took their
// place: connections that had begun there come to their end.
const farewell = int64(3e9)

// opened is what a worker is given of a namespace.
type opened struct {
	namespace         int
	outbound, inbound []int
}

// duplicate makes for each worker what it is given of a namespace. When it fails
// nothing was taken.
func duplicate(s *door.Sockets, workers int) (all []opened, err error) {
	for _, fd := range append(append([]int(nil), s.Outbound...), s.Inbound...) {
		if err := errors.Join(unix.SetNonblock(fd, true), engine.Endure(fd)); err != nil {
			return nil, fmt.Errorf("listening socket: %w", err)
		}
	}
	all = make([]opened, workers)
	for i := range all {
		if all[i].namespace, err = unix.FcntlInt(uintptr(s.Namespace), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			closeNamespaces(all[:i])
			return nil, fmt.Errorf("descriptor of a network namespace: %w", err)
		}
	}
	for i, fd := range s.Outbound {
		all[i%workers].outbound = append(all[i%workers].outbound, fd)
	}
	for i, fd := range s.Inbound {
		all[i%workers].inbound = append(all[i%workers].inbound, fd)
	}
	return all, nil
}

func closeNamespaces(all []opened) {
	for i := range all {
		unix.Close(all[i].namespace)
	}
}

// moveIn gives a worker the sockets of a namespace, in place of others.
func (w *worker) moveIn(name string, o opened) {
	inode := inodeOf(o.namespace)
	h := w.homes[name]
	if h != nil && h.inode != inode {
		w.moveOut(name)
		h = nil
	}
	if h == nil {
		h = &home{w: w, name: name, inode: inode}
		w.homes[name] = h
	} else {
		unix.Close(h.namespace)
		h.older = append(h.older, h.socks...)
		h.socks = nil
		w.loop.Arm(&h.timer, w.loop.Now+farewell, h)
	}
	h.namespace = o.namespace
	h.listen(o.outbound, telemetry.Out)
	h.listen(o.inbound, telemetry.In)
}

func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// listen takes connections of sockets that are h's from here on.
func (h *home) listen(fds []int, side telemetry.Side) {
	w := h.w
	for _, fd := range fds {
		if w.draining {
			unix.Close(fd)
			continue
		}
		s, err := w.loop.Accept(fd, func(fd int, peer netip.AddrPort) { w.meet(h, side, fd, peer) })
		if err != nil {
			w.p.log.Error("cannot accept in a network namespace", "namespace", h.name, "error", err)
			unix.Close(fd)
			continue
		}
		h.socks = append(h.socks, s)
	}
}

// moveOut ends all sockets of a namespace that is no more, or it would live on.
func (w *worker) moveOut(name string) {
	h := w.homes[name]
	if h == nil {
		return
	}
	h.stop()
	unix.Close(h.namespace)
	h.namespace = -1
	delete(w.homes, name)
	w.conns.all(func(c conn) {
		if f := c.flowing(); f != nil && f.home == h {
			c.cut()
		}
	})
}

// stop accepts no more.
func (h *home) stop() {
	h.w.loop.Disarm(&h.timer)
	for _, s := range append(h.socks, h.older...) {
		s.Close()
	}
	h.socks, h.older = nil, nil
}

// Expire implements engine.Expirer: nobody is left at the older sockets.
func (h *home) Expire(*engine.Timer) {
	for _, s := range h.older {
		s.Close()
	}
	h.older = nil
}

// Serve implements door.Served: it makes a State what is served.
func (p *Proxy) Serve(s door.State) error { return p.apply(s.Config, s.Sockets) }

// change is what is new and what is no more among the namespaces of a State.
type change struct {
	in  map[string][]opened // by worker
	out []string
}

func (c *change) close() {
	for _, all := range c.in {
		closeNamespaces(all)
	}
}

// compare says what changes with sockets, and duplicates what has to be. Caller
// holds mu.
func (p *Proxy) compare(sockets map[string]*door.Sockets) (c change, err error) {
	c.in = map[string][]opened{}
	for name, s := range sockets {
		if p.namespaces[name] == s {
			continue
		}
		if c.in[name], err = duplicate(s, len(p.workers)); err != nil {
			c.close()
			return c, fmt.Errorf("namespace %s: %w", name, err)
		}
	}
	for name := range p.namespaces {
		if sockets[name] == nil {
			c.out = append(c.out, name)
		}
	}
	return c, nil
}

// commit makes sockets those that are served. Caller holds mu.
func (p *Proxy) commit(sockets map[string]*door.Sockets, c change) {
	for name := range c.in {
		unix.Close(sockets[name].Namespace) // each worker has its own
	}
	p.namespaces = maps.Clone(sockets)
}

// settle makes the worker's namespaces what they are to be.
func (w *worker) settle(c change) {
	for _, name := range c.out {
		w.moveOut(name)
	}
	for name, all := range c.in {
		w.moveIn(name, all[w.index])
	}
}

// Alive implements door.Served.
func (p *Proxy) Alive(ctx context.Context) error {
	turned := make(chan struct{}, len(p.workers))
	for _, w := range p.workers {
		w.loop.Post(func() { turned <- struct{}{} })
	}
	for range p.workers {
		select {
		case <-turned:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Ejected implements door.Served.
func (p *Proxy) Ejected() []door.Ejection {
	n := p.plan.Load()
	if n == nil {
		return nil
	}
	var out []door.Ejection
	for _, c := range n.clusters {
		if c.shared.Quiet() {
			continue
		}
		for _, s := range c.shared.Status() {
			switch {
			case s.Ejected:
				out = append(out, door.Ejection{Cluster: c.name, Address: s.Address, Reason: s.Reason.String()})
			case !s.Well:
				out = append(out, door.Ejection{Cluster: c.name, Address: s.Address, Reason: "check"})
			}
		}
	}
	return out
}
