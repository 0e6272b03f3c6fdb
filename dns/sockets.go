package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"moire.dev/moire/snapshot"
)

// Bounds of a connection.
const (
	idleTime      = 10 * time.Second
	writeTime     = 5 * time.Second
	readBuffer    = 1 << 20
	maxConnection = 32 // queries of one connection that are being answered
)

// begin makes the job of a query from a client of a Network; false: the
// Network has no name service.
func (s *Server) begin(j *job, vni snapshot.VNI, client netip.Addr, stream bool) bool {
	v := s.names.Load().views[vni]
	t := (*s.tenants.Load())[vni]
	if v == nil || t == nil {
		return false
	}
	j.s, j.t, j.v, j.stream = s, t, v, stream
	j.client = snapshot.Addr{VNI: vni, IP: client.Unmap().WithZone("")}
	return true
}

// ServePacket answers what comes by UDP to a socket that is bound to the
// Network, until ctx is done or the socket is closed by others. It does not
// close the socket.
func (s *Server) ServePacket(ctx context.Context, vni snapshot.VNI, c *net.UDPConn) error {
	ctx, end := until(ctx, c.SetReadDeadline)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	c.SetReadBuffer(readBuffer) // as much of it as the machine allows
	in, out := make([]byte, maxQuery), make([]byte, 0, ednsSize)
	j := new(job)
	for {
		n, from, err := c.ReadFromUDPAddrPort(in)
		if err != nil {
			if over(ctx, err) {
				return nil
			}
			continue
		}
		if !s.begin(j, vni, from.Addr(), false) {
			continue
		}
		answer, more := j.start(in[:n], out)
		if !more {
			if answer != nil {
				c.WriteToUDPAddrPort(answer, from)
			}
			continue
		}
		select {
		case j.t.busy <- struct{}{}:
		default:
			s.stats.dropped.Add(1)
			continue
		}
		late, question := j, append([]byte(nil), j.q.question...)
		late.q.question, late.q.key = question, late.q.room[:len(question)-4]
		wg.Go(func() {
			defer func() { <-late.t.busy }()
			c.WriteToUDPAddrPort(late.finish(ctx, make([]byte, 0, ednsSize)), from)
		})
		j = new(job)
	}
}

// until makes what waits at a socket end with ctx, by its deadline; end gives
// that up, and ends what was begun meanwhile.
func until(ctx context.Context, deadline func(time.Time) error) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { deadline(time.Unix(1, 0)) })
	return ctx, func() { stop(); cancel() }
}

// over reports whether a socket has ended with err. Otherwise it waits a
// moment: what passes, such as an answer that could not be delivered, may come
// again and again.
func over(ctx context.Context, err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return true
	}
	select {
	case <-ctx.Done():
		return true
	case <-time.After(10 * time.Millisecond):
		return false
	}
}

// ServeStream answers what comes by TCP to a socket that is bound to the
// Network (RFC 7766), until ctx is done or the listener is closed by others.
// It does not close the listener.
func (s *Server) ServeStream(ctx context.Context, vni snapshot.VNI, l *net.TCPListener) error {
	ctx, end := until(ctx, l.SetDeadline)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			if over(ctx, err) {
				return nil
			}
			continue
		}
		t := (*s.tenants.Load())[vni]
		from, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		if t == nil || !t.admit(from.Addr()) {
			s.stats.dropped.Add(1)
			c.SetLinger(0)
			c.Close()
			continue
		}
		wg.Go(func() {
			defer t.leave(from.Addr())
			defer c.Close()
			s.connection(ctx, vni, from.Addr(), c)
		})
	}
}

// admit counts a connection in, unless there are too many.
func (t *tenant) admit(a netip.Addr) bool {
	select {
	case t.stream <- struct{}{}:
	default:
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients[a] >= maxClientStreams {
		<-t.stream
		return false
	}
	t.clients[a]++
	return true
}

func (t *tenant) leave(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients[a]--; t.clients[a] == 0 {
		delete(t.clients, a)
	}
	<-t.stream
}

// connection answers queries as they come, each as soon as it can.
func (s *Server) connection(ctx context.Context, vni snapshot.VNI, client netip.Addr, c *net.TCPConn) {
	ctx, end := until(ctx, c.SetDeadline)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	var mu sync.Mutex
	write := func(m []byte) error {
		mu.Lock()
		defer mu.Unlock()
		c.SetWriteDeadline(time.Now().Add(writeTime))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err := c.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(m)), uint16(len(m))), m...))
		return err
	}
	slots := make(chan struct{}, maxConnection)
	for {
		c.SetReadDeadline(time.Now().Add(idleTime))
		if ctx.Err() != nil {
			return
		}
		m, err := readMessage(c)
		if err != nil {
			return
		}
		j := new(job)
		if !s.begin(j, vni, client, true) {
			return
		}
		answer, more := j.start(m, nil)
		if !more {
			if answer == nil || write(answer) != nil {
				return
			}
			continue
		}
		select {
		case slots <- struct{}{}: // who asks more than that waits
		case <-ctx.Done():
			return
		}
		select {
		case j.t.busy <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-slots; <-j.t.busy }()
			if write(j.finish(ctx, nil)) != nil {
				c.SetReadDeadline(time.Unix(1, 0))
			}
		})
	}
}

// readMessage reads one message with its length in front.
func readMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n < headerSize || n > maxQuery {
		return nil, fmt.Errorf("a query of %d bytes", n)
	}
	m := make([]byte, n)
	_, err := io.ReadFull(r, m)
	return m, err
}
