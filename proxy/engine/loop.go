package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Loop is one event loop. In the order of a turn: events of sockets, bytes
// that were left for this turn, timers, tasks that became ready, and at last
// one write for each connection that has something to say.
type Loop struct {
	// Now is the monotonic time in nanoseconds, read once a turn.
	Now int64
	// Panics counts tasks that ended in a panic. OnPanic, when set, is told.
	Panics  int
	OnPanic func(v any, stack []byte)
	// BeforeFlush, when set, is called once a turn before what waits is written.
	BeforeFlush func()

	poll     poller
	ring     *ring   // for what connections read and write; nil: they use epoll, too
	launched []*Conn // sent from when the ring is entered
	slots    []slot  // by file descriptor
	timers   wheel
	buffers  pool

	ready   []*Task // to be resumed in this turn
	spare   []*Task // the other array of ready
	idle    []*Task // coroutines without work
	working []*Task // those with
	idlest  int     // so many of them were not needed since the last Trim
	tasks   int     // coroutines, idle ones too
	again   []*Conn // sockets that may have more to read
	other   []*Conn // the other array of again
	dirty   []*Conn // something to write
	pipes   []*Pipe // that are not in use
	piped   int     // pipes, those in use, too

	base   time.Time
	posted struct {
		sync.Mutex
		work []func()
		rang bool
	}
	crowded bool
	stopped bool

	origin int    // descriptor of the namespace of this process; 0: nobody left it yet
	failed error  // the thread is lost elsewhere
	port   uint16 // the last one with another's address
}

// slot says whose a file descriptor is. The generation tells an event of a
// descriptor that was closed from one of its successor.
type slot struct {
	generation uint32
	conn       *Conn
	listener   *Listener
}

// RingUse says whether a Loop talks to the kernel through io_uring.
type RingUse uint8

const (
	// RingAuto: if the kernel has all that is needed and allows it, else epoll.
	RingAuto RingUse = iota
	RingOff
	// RingOn: or New fails.
	RingOn
)

// Options of a Loop; the zero value is good.
type Options struct{ Ring RingUse }

// New makes a Loop. It starts nothing; Close frees it, after Run.
func New(o Options) (l *Loop, err error) {
	l = &Loop{base: time.Now(), port: uint16(rand.N(lastPort))}
	l.timers.init()
	if err := l.poll.open(); err != nil {
		return nil, fmt.Errorf("event loop: %w", err)
	}
	if o.Ring == RingOff {
		return l, nil
	}
	if l.ring, err = openRing(); err != nil && o.Ring == RingOn {
		l.Close()
		return nil, fmt.Errorf("event loop: %w", err)
	}
	return l, nil
}

// Kind is how the Loop talks to the kernel: io_uring or epoll.
func (l *Loop) Kind() string {
	if l.ring != nil {
		return "io_uring"
	}
	return "epoll"
}

// Close closes what the loop has, its own descriptors and those of all
// connections and listeners. Run has ended, or was never called.
func (l *Loop) Close() {
	for fd := range l.slots {
		switch s := l.slots[fd]; {
		case s.conn != nil:
			s.conn.Close()
		case s.listener != nil:
			s.listener.Close()
		}
	}
	for len(l.pipes) > 0 {
		l.trimPipes()
	}
	l.poll.close()
	if l.ring != nil {
		l.ring.close()
	}
	if l.origin > 0 {
		unix.Close(l.origin)
	}
}

// Run turns the loop until ctx ends or Stop is called.
func (l *Loop) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.Post(l.Stop) })
	defer stop()
	// The ring belongs to a thread, and what it completes is done by it.
	runtime.LockOSThread()
	defer func() {
		if l.failed == nil { // else the thread is nobody's any more, and ends
			runtime.UnlockOSThread()
		}
	}()
	defer prompt()()
	if l.ring != nil {
		if err := l.beginRing(); err != nil {
			return fmt.Errorf("event loop: %w", err)
		}
		defer l.endRing()
	}
	defer l.endTasks()
	for !l.stopped {
		if err := l.turn(); err != nil {
			return err
		}
		if l.failed != nil {
			return fmt.Errorf("event loop: %w", l.failed)
		}
	}
	return nil
}

// Stop ends Run after this turn. It belongs to the loop: others Post it.
func (l *Loop) Stop() { l.stopped = true }

// Post has f run by the loop. It may be called from any goroutine.
func (l *Loop) Post(f func()) {
	p := &l.posted
	p.Lock()
	p.work = append(p.work, f)
	ring := !p.rang
	p.rang = true
	p.Unlock()
	if ring {
		l.poll.ring()
	}
}

func (l *Loop) turn() error {
	wait := int64(-1)
	if len(l.ready) > 0 || len(l.again) > 0 || len(l.dirty) > 0 {
		wait = 0
	} else if at, any := l.timers.next(); any {
		wait = max(at-l.clock(), 0)
	}
	if err := l.events(wait); err != nil {
		return fmt.Errorf("event loop: %w", err)
	}
	l.readAgain()
	l.timers.advance(l.Now)
	l.runReady()
	l.flush()
	l.crowd()
	return nil
}

// events waits for what happens, and tells of it.
func (l *Loop) events(wait int64) error {
	if l.ring != nil {
		return l.completions(wait)
	}
	return l.epoll(wait)
}

func (l *Loop) epoll(wait int64) error {
	n, err := l.poll.wait(wait)
	if err != nil {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	l.Now = l.clock()
	for i := range n {
		l.event(&l.poll.events[i])
	}
	return nil
}

// plenty of buffers, in bytes, may be in use before a Loop is Crowded.
const plenty = 8 << 20

// Crowded says whether connections hold so much that each should hold less.
func (l *Loop) Crowded() bool { return l.crowded }

// crowd looks whether it is crowded.
func (l *Loop) crowd() {
	switch used := l.buffers.used; {
	case l.crowded:
		l.crowded = used > plenty/2
	case used > plenty:
		l.crowded = true
		for i := range l.slots {
			if c := l.slots[i].conn; c != nil {
				c.thrift()
			}
		}
	}
}

func (l *Loop) clock() int64 { return int64(time.Since(l.base)) }

func (l *Loop) event(ev *unix.EpollEvent) {
	fd := int(ev.Fd)
	if fd == l.poll.bell {
		l.poll.hush()
		l.runPosted()
		return
	}
	if fd >= len(l.slots) {
		return
	}
	s := &l.slots[fd]
	if s.generation != uint32(ev.Pad) {
		return
	}
	switch {
	case s.conn != nil:
		s.conn.event(ev.Events)
	case s.listener != nil:
		s.listener.accept()
	}
}

func (l *Loop) runPosted() {
	p := &l.posted
	p.Lock()
	work := p.work
	p.work, p.rang = nil, false
	p.Unlock()
	for _, f := range work {
		f()
	}
}

// readAgain reads where a full buffer or fairness left bytes in the kernel.
func (l *Loop) readAgain() {
	conns := l.again
	l.again = l.other[:0]
	for i, c := range conns {
		conns[i] = nil
		c.queued = false
		if c.fd >= 0 {
			c.pull()
			c.owner.Ready(c)
		}
	}
	l.other = conns[:0]
}

// runReady resumes tasks; those that they wake run in this turn, too, but no
// more than a few rounds, so that sockets are not forgotten.
func (l *Loop) runReady() {
	for range 4 {
		if len(l.ready) == 0 {
			return
		}
		tasks := l.ready
		l.ready = l.spare[:0]
		for i, t := range tasks {
			tasks[i] = nil
			t.resume()
		}
		l.spare = tasks[:0]
	}
}

func (l *Loop) flush() {
	for {
		if l.BeforeFlush != nil {
			l.BeforeFlush()
		}
		if len(l.dirty) == 0 {
			return
		}
		// A flush may make others dirty (an owner that is told), or give them something
		// to do before the next one: they are served, too.
		for i := 0; i < len(l.dirty); i++ {
			c := l.dirty[i]
			l.dirty[i] = nil
			c.dirty = false
			if c.fd >= 0 {
				c.flush()
			}
		}
		l.dirty = l.dirty[:0]
	}
}

// adopt makes a descriptor known, and registers it for events, if any.
func (l *Loop) adopt(fd int, c *Conn, ln *Listener, events uint32) error {
	for fd >= len(l.slots) {
		l.slots = append(l.slots, make([]slot, max(64, len(l.slots)))...)
	}
	s := &l.slots[fd]
	s.generation++
	s.conn, s.listener = c, ln
	if events == 0 {
		return nil
	}
	if err := l.poll.add(fd, s.generation, events); err != nil {
		s.conn, s.listener = nil, nil
		return err
	}
	return nil
}

// abandon forgets and closes a descriptor.
func (l *Loop) abandon(fd int) {
	s := &l.slots[fd]
	if s.conn != nil && s.conn.held() {
		s.conn.letGo()
		s.generation++
		s.conn = nil
		return
	}
	if s.listener != nil {
		// Another process may hold the same socket: closing alone would leave it
		// registered here.
		l.poll.remove(fd)
	}
	s.generation++
	s.conn, s.listener = nil, nil
	syscall.Close(fd)
}
