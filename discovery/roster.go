package discovery

import (
	"sync"
	"sync/atomic"
	"time"

	"moire.dev/moire/snapshot"
)

// NodeState is what the server knows of a node.
type NodeState struct {
	Node string
	// Wanted is the last that was published, Acked the last that the node has
	// received, Applied the last that is in its kernel. Empty: none.
	Wanted, Acked, Applied snapshot.Version
	// Error is why the node, or the way to it, refused the last version; empty
	// when all is well.
	Error     string
	Connected bool
	// LastSeen is now while the node is connected, else when that ended; zero:
	// never since this server started.
	LastSeen time.Time
	// Remote is the address that the node connected from.
	Remote string
}

// member is what the server holds for one node. Its state is written by the
// Watch stream that has the turn, and by nobody else.
type member struct {
	node    string
	streams int // that use this; of Server.mu
	wanted  atomic.Pointer[wanted]
	changed chan struct{} // holds one signal; wanted may be another
	last    atomic.Pointer[NodeState]
	watch   slot
	ship    slot
	issue   allowance
	felt    atomic.Int64 // when it gave a sign of life last, unix nanoseconds
}

// wanted is a published snapshot; its Digest is computed once, by whoever needs
// it first: from that of the one before, where it is known.
type wanted struct {
	snap   *snapshot.Snapshot
	before atomic.Pointer[wanted]
	once   sync.Once
	digest atomic.Pointer[snapshot.Digest]
}

// newWanted follows before, which may be nil.
func newWanted(snap *snapshot.Snapshot, before *wanted) *wanted {
	w := &wanted{snap: snap}
	for before != nil && before.digest.Load() == nil {
		before = before.before.Load() // nobody looked at that one
	}
	w.before.Store(before)
	return w
}

// Version is the version of the snapshot.
func (w *wanted) Version() snapshot.Version {
	w.once.Do(func() {
		var d snapshot.Digest
		if b := w.before.Load(); b != nil && w.snap.Node == b.snap.Node {
			delta := snapshot.DiffTo(b.snap, w.snap, "")
			d = b.digest.Load().After(b.snap, &delta)
		} else {
			d = w.snap.Digest()
		}
		w.digest.Store(&d)
		w.before.Store(nil)
	})
	return w.digest.Load().Version()
}

func newMember(node string) *member {
	m := &member{node: node, changed: make(chan struct{}, 1)}
	m.last.Store(&NodeState{Node: node})
	return m
}

func (m *member) poke() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func (m *member) state() NodeState {
	out := *m.last.Load()
	if out.Connected {
		out.LastSeen = time.Now() // keepalive would have ended the connection
	}
	if w := m.wanted.Load(); w != nil {
		out.Wanted = w.Version()
	}
	return out
}

// slot is for streams of which each node may have one: the newest wins.
type slot struct {
	mu  sync.Mutex
	now *turn
}

// turn is one stream's time in its slot.
type turn struct {
	slot *slot
	// stop is closed when a newer stream wants the slot.
	stop chan struct{}
	// done is closed when this stream and all before it have ended.
	done chan struct{}
}

// take asks the stream that has the slot to stop and waits until it has.
func (s *slot) take() *turn {
	t := &turn{slot: s, stop: make(chan struct{}), done: make(chan struct{})}
	s.mu.Lock()
	before := s.now
	s.now = t
	s.mu.Unlock()
	if before != nil {
		close(before.stop)
		<-before.done
	}
	return t
}

// over reports whether a newer stream wants the slot.
func (t *turn) over() bool {
	select {
	case <-t.stop:
		return true
	default:
		return false
	}
}

// end gives the slot free. It is called last of all.
func (t *turn) end() {
	t.slot.mu.Lock()
	if t.slot.now == t {
		t.slot.now = nil
	}
	t.slot.mu.Unlock()
	close(t.done)
}
