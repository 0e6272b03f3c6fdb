package engine

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// A Pipe moves bytes from one Conn to another without a copy of them here
// (splice(2)): the kernel hands on the pages that they came in. It pays where
// much comes; what is small costs as many calls and no less.
type Pipe struct {
	from, to *Conn
	r, w     int
	held     int  // bytes in it
	begun    bool // from is lent to it
	scarce   int  // moves in a row that were small
}

const (
	// pipeSize is asked of the kernel: a page of what came takes one place of a
	// pipe, of which there is one for 4 KiB of its size.
	pipeSize = 256 << 10
	// mostPipes that a Loop has at a time, and of these so many that are not in use.
	mostPipes  = 512
	sparePipes = 32
	// bulkyRead bytes at least, flooded times in a row, are read of a Conn until it
	// is worth a Pipe; scarceMove bytes at most, so often in a row, until it is not.
	bulkyRead  = 32 << 10
	flooded    = 4
	scarceMove = 8 << 10
	scarceMost = 32
	// moves are made in one turn; others want to go on, too.
	moves = 4
)

// PipeTo is a Pipe from c to another Conn when much comes on c, or is known to
// come; nil: use In. Both are plain, and the owner consumes what is in In, and has
// what waits in the other written, before Move does anything.
func (c *Conn) PipeTo(to *Conn, known bool) *Pipe {
	l := c.loop
	if c.flood < flooded && !known || c.layer != nil || to.layer != nil || c.Broken() || to.Broken() || to.Connecting {
		return nil
	}
	p := l.pipe()
	if p != nil {
		p.from, p.to = c, to
		c.join()
		to.join()
	}
	return p
}

// pipe is one that is free, or new; nil: there are too many, or no descriptors.
func (l *Loop) pipe() *Pipe {
	if n := len(l.pipes); n > 0 {
		p := l.pipes[n-1]
		l.pipes = l.pipes[:n-1]
		return p
	}
	var fds [2]int
	if l.piped >= mostPipes || unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	l.piped++
	// Who may not have so much has what there is.
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &Pipe{r: fds[0], w: fds[1]}
}

// join readies c for a Pipe. With a ring it has to be polled, and must not block.
func (c *Conn) join() {
	c.pipes++
	if c.loop.ring == nil || c.pipes > 1 || c.fd < 0 {
		return
	}
	unix.FcntlInt(uintptr(c.fd), unix.F_SETFL, unix.O_NONBLOCK)
	c.bulk = bulky
	if c.armed == receiving {
		c.disarm()
	}
}

func (c *Conn) part() {
	c.pipes--
	if c.loop.ring != nil && c.pipes == 0 && c.fd >= 0 {
		unix.FcntlInt(uintptr(c.fd), unix.F_SETFL, 0)
	}
}

// begin lends from to p once nothing else moves its bytes.
func (p *Pipe) begin() bool {
	if p.begun {
		return true
	}
	if p.from.receives() || p.to.receives() || p.from.In.Len() > 0 || p.to.Pending() > 0 {
		return false
	}
	p.begun = true
	p.from.lent, p.from.more = true, true
	p.from.In.release(p.from.loop)
	return true
}

// receives: the ring may still put something into In.
func (c *Conn) receives() bool { return c.armed == receiving || c.armed == ending }

// Held is how many bytes are on their way.
func (p *Pipe) Held() int { return p.held }

// Move moves what there is as far as there is room, taking no more than most, and
// says how many bytes came into the Pipe and how many went out of it. The owners
// are told when it can go on.
func (p *Pipe) Move(most int) (in, out int) {
	if !p.begin() {
		return 0, 0
	}
	from := p.from
	for range moves {
		n := p.fill(most - in)
		m := p.drain()
		in, out = in+n, out+m
		if !from.more || p.held > 0 || in == most || n+m == 0 {
			break
		}
	}
	if from.more && p.held == 0 && in < most {
		from.Resume() // in the next turn
	}
	if in > scarceMove || p.held > 0 {
		p.scarce = 0
	} else if in > 0 {
		p.scarce++
	}
	return in, out
}

// fill takes from the socket what came.
func (p *Pipe) fill(most int) int {
	c := p.from
	if c.EOF || c.Broken() {
		c.more = false
	}
	if !c.more || most <= 0 {
		return 0
	}
	n, errno := splice(c.fd, p.w, min(most, pipeSize))
	switch {
	case errno == syscall.EINTR:
	case errno == syscall.EAGAIN:
		c.more = p.held > 0 // then it may be the pipe that is full
	case errno != 0:
		c.Err, c.more = errno, false
	case n == 0:
		c.EOF, c.more = true, false
	default:
		p.held += n
		c.Received += uint64(n)
	}
	return n
}

// drain gives the other socket what it takes.
func (p *Pipe) drain() int {
	c := p.to
	if p.held == 0 || c.BlockedAt != 0 || c.Broken() {
		return 0
	}
	n, errno := splice(p.r, c.fd, p.held)
	switch {
	case errno == syscall.EINTR:
	case errno == syscall.EAGAIN:
		c.blocked()
	case errno != 0:
		c.broke(errno)
	default:
		p.held -= n
		c.Sent += uint64(n)
		if p.held > 0 {
			c.blocked()
		}
	}
	return n
}

// Scarce: so little comes that In is as good. It is false while bytes are on
// their way.
func (p *Pipe) Scarce() bool { return p.scarce >= scarceMost && p.held == 0 }

// Close gives the pipe back; from is read as before. Bytes that are on their way
// are lost.
func (p *Pipe) Close() {
	from, l := p.from, p.from.loop
	from.part()
	p.to.part()
	if p.begun {
		from.lent, from.flood = false, 0
		from.Resume()
	}
	if p.held > 0 || len(l.pipes) >= sparePipes {
		l.discardPipe(p)
		return
	}
	*p = Pipe{r: p.r, w: p.w}
	l.pipes = append(l.pipes, p)
}

// trimPipes closes half of those that are not in use.
func (l *Loop) trimPipes() {
	keep := len(l.pipes) / 2
	for i, p := range l.pipes[keep:] {
		l.discardPipe(p)
		l.pipes[keep+i] = nil
	}
	l.pipes = l.pipes[:keep]
}

func (l *Loop) discardPipe(p *Pipe) {
	l.piped--
	unix.Close(p.r)
	unix.Close(p.w)
}

// splice moves bytes between a socket and a pipe, and never blocks: the runtime
// need not be told.
func splice(from, to, most int) (int, syscall.Errno) {
	const flags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	n, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(most), flags)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
