package control

import (
	"maps"
	"slices"
	"sync"
	"time"

	"moire.dev/moire/snapshot"
)

// nodeWorld is what is known of one node. Values are replaced, not changed.
type nodeWorld struct {
	// report is the last one; nil: none yet.
	report *snapshot.Report
	// here: connected to this process. away: connected to the process owner,
	// as that one says.
	here, away bool
	owner      string
	// term of the connection; 0: not saved yet.
	term uint64
	// fresh: reported since the process that it is connected to started.
	fresh          bool
	seen           time.Time
	acked, applied snapshot.Version
	err            string
	lost           uint64
}

func (n nodeWorld) connected() bool { return n.here || n.away }

// world is the shelf of what nodes say. It is safe for concurrent use.
type world struct {
	self string
	now  func() time.Time
	wake func()

	mu    sync.Mutex
	nodes map[string]nodeWorld
	dirty map[string]bool
	// shared: other processes want to know how far our nodes are.
	shared bool
	// facts counts changes of what is compiled, signs also those of status.
	facts, signs uint64
}

func newWorld(self string, now func() time.Time, wake func()) *world {
	return &world{self: self, now: now, wake: wake, nodes: map[string]nodeWorld{}, dirty: map[string]bool{}}
}

// change replaces what is known of a node. save: the change shall outlive us.
func (w *world) change(node string, facts, save bool, how func(*nodeWorld)) {
	w.mu.Lock()
	n := w.nodes[node]
	n.seen = w.now()
	how(&n)
	w.nodes[node] = n
	w.signs++
	if facts {
		w.facts++
	}
	if save || w.shared {
		w.dirty[node] = true
	}
	w.mu.Unlock()
	w.wake()
}

func (w *world) connected(node string) {
	w.change(node, false, true, func(n *nodeWorld) {
		n.here, n.away, n.owner, n.fresh, n.err, n.term = true, false, w.self, false, "", 0
	})
}

// setTerm notes the term of a connection that was saved.
func (w *world) setTerm(node string, term uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.nodes[node]; n.here && n.term == 0 {
		n.term = term
		w.nodes[node] = n
	}
}

// gone: a node has no connection any more, and was heard last then.
func (w *world) gone(node string, heard time.Time) {
	w.change(node, false, true, func(n *nodeWorld) { n.here, n.fresh, n.seen = false, false, heard })
}

// report takes the word of a node; the first one after it connected is always
// a change, because others wait for it.
func (w *world) report(node string, r snapshot.Report) {
	r.Node = node
	slices.SortFunc(r.Attachments, func(a, b snapshot.Attachment) int { return a.Compare(b.AttachmentKey) })
	w.change(node, true, true, func(n *nodeWorld) {
		n.report, n.fresh = &r, n.here
		n.lost = max(n.lost, r.RecordsLost)
	})
}

func (w *world) ack(node string, v snapshot.Version, applied bool, errText string) {
	w.change(node, false, false, func(n *nodeWorld) {
		if errText == "" {
			n.acked = v
			if applied {
				n.applied, n.err = v, ""
			}
			return
		}
		n.err = errText
	})
}

func (w *world) recordsLost(node string, lost uint64) {
	w.mu.Lock()
	same := w.nodes[node].lost == lost
	w.mu.Unlock()
	if !same {
		w.change(node, false, false, func(n *nodeWorld) { n.lost = lost })
	}
}

// adopt takes over what another process, or our own former life, saved. It
// never overrides what a node that is connected here says.
func (w *world) adopt(node string, n nodeWorld) {
	w.mu.Lock()
	old, known := w.nodes[node]
	if old.here || known && w.dirty[node] || known && sameWorld(old, n) {
		w.mu.Unlock()
		return
	}
	w.nodes[node] = n
	w.facts++
	w.signs++
	w.mu.Unlock()
	w.wake()
}

func sameWorld(a, b nodeWorld) bool {
	return a.away == b.away && a.owner == b.owner && a.fresh == b.fresh && a.seen.Equal(b.seen) &&
		a.acked == b.acked && a.applied == b.applied && a.err == b.err && a.lost == b.lost
}

// forget drops a node that is not connected here. It reports whether it is
// gone now.
func (w *world) forget(node string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.dirty, node)
	if w.nodes[node].here {
		return false
	}
	if _, known := w.nodes[node]; known {
		delete(w.nodes, node)
		w.facts++
		w.signs++
	}
	return true
}

// all returns everything known at this moment and the counts of changes.
func (w *world) all() (nodes map[string]nodeWorld, facts, signs uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.nodes), w.facts, w.signs
}

func (w *world) share(with bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shared = with
}

// takeDirty returns the nodes of which something is to be saved.
func (w *world) takeDirty() map[string]nodeWorld {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[string]nodeWorld, len(w.dirty))
	for node := range w.dirty {
		out[node] = w.nodes[node]
	}
	clear(w.dirty)
	return out
}

func (w *world) markDirty(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.nodes[node]; known {
		w.dirty[node] = true
	}
}

// isConnected: here or to another process.
func (w *world) isConnected(node string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[node].connected()
}
