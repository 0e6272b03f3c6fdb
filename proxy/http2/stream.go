package http2

import "moire.dev/moire/proxy/message"

// Stream is one exchange. It belongs to the owner of the connection from Open or
// the Head event until Release, also when the peer has reset it meanwhile.
type Stream struct {
	// ID is 0 on a client's stream until its head is written.
	ID uint32
	// Owner is for the owner of the connection.
	Owner any
	// Head is the last head received: a request, or an interim or final answer. It
	// stays until the next head, or Release; trailers do not disturb it.
	Head message.Head
	// Trailers received; they stay until Release.
	Trailers []message.Field

	arena []byte // what Head and Trailers point into
	heavy int    // how much of it counts in heads

	sendWindow int32
	recvWindow int32
	expect     int64 // of the body towards us, bytes to come by its length; -1: unknown
	held       uint32
	unacked    uint32 // consumed but not given back by WINDOW_UPDATE yet

	flags   streamFlags
	interim uint8
	code    Code
	reason  string

	next, prev *Stream // in the ready queue, or in the pool
	since      int64   // see Stalled
	born       int64   // when the peer opened it
}

type streamFlags uint16

const (
	localEnd     streamFlags = 1 << iota // we sent END_STREAM
	remoteEnd                            // the peer did
	headSent                             // our final head
	headReceived                         // the peer's final head
	isHead                               // the request's method is HEAD
	isConnect                            // the request's method is CONNECT
	isExtended                           // ... with a :protocol
	listed                               // in the table of the connection
	aborted                              // reset by either side
	blocked                              // WriteData took less than it was given
	queued                               // in the ready queue
	isLost                               // its Reset event is due
	owned                                // not released yet
)

func (s *Stream) is(f streamFlags) bool { return s.flags&f != 0 }

// LocalDone says whether our side has ended: END_STREAM was written, or the
// stream was reset.
func (s *Stream) LocalDone() bool { return s.is(localEnd | aborted) }

// RemoteDone says whether the peer's side has ended: its END_STREAM was
// received, or the stream was reset.
func (s *Stream) RemoteDone() bool { return s.is(remoteEnd | aborted) }

// Aborted says whether the stream was reset by either side, and how.
func (s *Stream) Aborted() (code Code, reason string, yes bool) {
	return s.code, s.reason, s.is(aborted)
}

// Stalled is since when WriteData could write nothing of what it was given, or
// not the rest of it; 0: it could write all.
func (s *Stream) Stalled() int64 {
	if s.is(blocked) {
		return s.since
	}
	return 0
}

// Pool keeps streams and buffers that are not in use, for all connections of one
// worker.
type Pool struct {
	free    *Stream
	count   int
	buffers [][]byte // for Out
	bytes   int      // in buffers
}

const (
	poolStreams = 4096
	// Above so many only those are kept that are small.
	poolLarge = 1024
	poolSmall = 1 << 10
	// A stream that grew larger than this is not kept.
	poolArena    = 4 << 10
	poolFields   = 64
	poolTrailers = 16

	smallBuffer = 2 << 10
	poolBytes   = 4 << 20 // of buffers
)

func (p *Pool) get() *Stream {
	s := p.free
	if s == nil {
		return &Stream{Head: message.Head{Fields: make([]message.Field, 0, 16), Length: -1}, arena: make([]byte, 0, 512)}
	}
	p.free = s.next
	p.count--
	s.next = nil
	return s
}

func (p *Pool) put(s *Stream) {
	if p.count >= poolLarge && cap(s.arena) > poolSmall {
		return
	}
	if p.count >= poolStreams || cap(s.arena) > poolArena || cap(s.Head.Fields) > poolFields || cap(s.Trailers) > poolTrailers {
		return
	}
	*s = Stream{Head: message.Head{Fields: s.Head.Fields[:0], Length: -1}, Trailers: s.Trailers[:0], arena: s.arena[:0], next: p.free}
	p.free = s
	p.count++
}

// buffer is an empty one with room for n bytes.
func (p *Pool) buffer(n int) []byte {
	for i := len(p.buffers) - 1; i >= 0; i-- {
		if b := p.buffers[i]; cap(b) >= n {
			last := len(p.buffers) - 1
			p.buffers[i], p.buffers[last] = p.buffers[last], nil
			p.buffers = p.buffers[:last]
			p.bytes -= cap(b)
			return b
		}
	}
	size := smallBuffer
	for size < n {
		size *= 2
	}
	return make([]byte, 0, size)
}

func (p *Pool) putBuffer(b []byte) {
	if cap(b) >= smallBuffer && p.bytes+cap(b) <= poolBytes {
		p.buffers = append(p.buffers, b[:0])
		p.bytes += cap(b)
	}
}

// streamTable finds streams by id: open addressing, at most half full.
type streamTable struct {
	slots []*Stream
	count int
}

// slot is where id belongs. Ids that follow each other are scattered: side by
// side they would be one long run, which a removal has to walk.
func (t *streamTable) slot(id uint32) int {
	return int((id>>1)*0x9E3779B1>>8) & (len(t.slots) - 1)
}

func (t *streamTable) find(id uint32) *Stream {
	if t.count == 0 {
		return nil
	}
	for i := t.slot(id); t.slots[i] != nil; i = (i + 1) & (len(t.slots) - 1) {
		if t.slots[i].ID == id {
			return t.slots[i]
		}
	}
	return nil
}

func (t *streamTable) add(s *Stream) {
	if 2*(t.count+1) > len(t.slots) {
		old := t.slots
		t.slots = make([]*Stream, max(8, 2*len(old)))
		for _, s := range old {
			if s != nil {
				t.place(s)
			}
		}
	}
	t.place(s)
	t.count++
}

func (t *streamTable) place(s *Stream) {
	i := t.slot(s.ID)
	for t.slots[i] != nil {
		i = (i + 1) & (len(t.slots) - 1)
	}
	t.slots[i] = s
}

// remove takes s out and moves those up that stand behind it for want of room.
func (t *streamTable) remove(s *Stream) {
	mask := len(t.slots) - 1
	i := t.slot(s.ID)
	for t.slots[i] != s {
		i = (i + 1) & mask
	}
	t.count--
	for j := i; ; {
		t.slots[i] = nil
		for {
			j = (j + 1) & mask
			if t.slots[j] == nil {
				return
			}
			// An entry may move to i if its own slot is not between i and j.
			if home := t.slot(t.slots[j].ID); (j-home)&mask >= (j-i)&mask {
				break
			}
		}
		t.slots[i] = t.slots[j]
		i = j
	}
}
