package control

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"moire.dev/moire/compile"
	"moire.dev/moire/ipam"
	"moire.dev/moire/snapshot/policy"
)

const (
	// saveEvery: a node's row is saved at once, and again at most this often.
	saveEvery = time.Second
	// beatEvery is how often a process says that it lives, and listens to others.
	beatEvery = time.Second
	listen    = 250 * time.Millisecond
	// deadAfter: a process that was silent for that long counts as gone.
	deadAfter = 5 * time.Second
	// forgetAfter: the beat of a process that was silent for that long goes.
	forgetAfter = time.Hour

	beatPrefix = "beat/"
)

// Ranges of the numbers that are given out.
const (
	firstVNI, lastVNI           = 100, 1<<24 - 1
	firstIdentity, lastIdentity = 256, 1<<31 - 1
	firstNode, lastNode         = 1, 1<<16 - 1
)

// allocations are the numbers that the compiler needs and no API object holds.
type allocations struct {
	identities map[compile.IdentityKey]policy.Identity
	nodes      map[string]uint16
}

// keeper reads and writes the rows: it saves the world, and shares world and
// allocations with other processes on the same store.
type keeper struct {
	rows  ipam.Rows
	self  string
	world *world
	log   *slog.Logger
	now   func() time.Time
	wake  func()

	vnis, identities, nodes *ipam.Numbers

	mu     sync.Mutex
	alloc  *allocations      // immutable; nil: not loaded
	found  *names            // immutable; nil: not loaded
	keys   *keySets          // immutable; nil: not loaded
	count  uint64            // of our beats
	url    string            // of our API, for others
	urls   map[string]string // of the other processes that live, by name
	heard  time.Time         // when others were last listened to with success
	unsung bool              // something changed since the last beat
	// declared tells which nodes exist as objects; nil: not known yet.
	declared map[string]bool
	// drops are nodes whose rows shall go.
	drops map[string]bool
	// before are the nodes that were connected to us in our former life.
	before map[string]bool
}

func newKeeper(rows ipam.Rows, self string, w *world, log *slog.Logger, now func() time.Time, wake func()) *keeper {
	return &keeper{rows: rows, self: self, world: w, log: log, now: now, wake: wake,
		vnis:       ipam.NewNumbers(rows, "vni", firstVNI, lastVNI),
		identities: ipam.NewNumbers(rows, "identity", firstIdentity, lastIdentity),
		nodes:      ipam.NewNumbers(rows, "node", firstNode, lastNode),
		drops:      map[string]bool{}, before: map[string]bool{},
	}
}

// allocations returns what is allocated; nil until load succeeded.
func (k *keeper) allocations() *allocations {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.alloc
}

// note replaces the allocations with a changed copy and tells everybody.
func (k *keeper) note(change func(*allocations)) {
	k.mu.Lock()
	next := allocations{identities: maps.Clone(k.alloc.identities), nodes: maps.Clone(k.alloc.nodes)}
	change(&next)
	k.alloc, k.unsung = &next, true
	k.mu.Unlock()
	k.wake()
}

func (k *keeper) setDeclared(nodes map[string]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.declared = nodes
}

// wasConnected: connected to this process before it was started anew.
func (k *keeper) wasConnected(node string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.before[node]
}

func (k *keeper) isDeclared(node string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.declared[node]
}

// load reads everything that is saved.
func (k *keeper) load(ctx context.Context) error {
	if err := k.loadAllocations(ctx); err != nil {
		return err
	}
	if err := k.loadNames(ctx); err != nil {
		return err
	}
	if err := k.loadKeySets(ctx); err != nil {
		return err
	}
	return k.loadWorld(ctx, nil)
}

func (k *keeper) loadAllocations(ctx context.Context) error {
	identities, err := k.identities.All(ctx)
	if err != nil {
		return fmt.Errorf("control: read identity numbers: %w", err)
	}
	nodes, err := k.nodes.All(ctx)
	if err != nil {
		return fmt.Errorf("control: read node numbers: %w", err)
	}
	next := &allocations{identities: make(map[compile.IdentityKey]policy.Identity, len(identities)), nodes: make(map[string]uint16, len(nodes))}
	for owner, n := range identities {
		next.identities[compile.IdentityKey(owner)] = policy.Identity(n)
	}
	for owner, n := range nodes {
		next.nodes[owner] = uint16(n)
	}
	k.mu.Lock()
	same := k.alloc != nil && maps.Equal(k.alloc.identities, next.identities) && maps.Equal(k.alloc.nodes, next.nodes)
	if !same {
		k.alloc = next
	}
	k.mu.Unlock()
	if !same {
		k.wake()
	}
	return nil
}

// loadWorld adopts the rows of the nodes. alive, when not nil, tells which
// processes live; the nodes of others are not connected.
func (k *keeper) loadWorld(ctx context.Context, alive map[string]bool) error {
	rows, err := k.rows.List(ctx, worldPrefix)
	if err != nil {
		return fmt.Errorf("control: read the world: %w", err)
	}
	for key, row := range rows {
		node := strings.TrimPrefix(key, worldPrefix)
		n, err := decodeWorld(node, k.self, row)
		if err != nil {
			// The node says it again when it comes; until then it keeps what it has.
			k.log.Warn("a saved report cannot be read and is ignored", "node", node, "error", err)
			continue
		}
		switch {
		case alive != nil:
			n.away = n.away && alive[n.owner]
		case n.owner == k.self && savedConnected(row):
			k.mu.Lock()
			k.before[node] = true
			k.mu.Unlock()
		}
		k.world.adopt(node, n)
	}
	return nil
}

// run saves and listens until ctx ends, and saves once more then.
func (k *keeper) run(ctx context.Context) error {
	saved := map[string]time.Time{}
	others := map[string]heard{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var lastBeat, lastListen time.Time
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			k.save(last, nil)
			k.sweep(last)
			return nil
		case <-tick.C:
		}
		k.save(ctx, saved)
		k.sweep(ctx)
		now := k.now()
		if k.loud() || now.Sub(lastBeat) >= beatEvery {
			if err := k.beat(ctx); err == nil {
				lastBeat = now
			}
		}
		if now.Sub(lastListen) >= listen {
			lastListen = now
			if err := k.hear(ctx, others); err != nil && ctx.Err() == nil {
				k.log.Warn("cannot hear other control planes", "error", err)
			}
		}
	}
}

// save writes the rows of changed nodes. saved holds when each was written
// last; nil: write everything now.
func (k *keeper) save(ctx context.Context, saved map[string]time.Time) {
	now := k.now()
	dirty := k.world.takeDirty()
	for _, node := range slices.Sorted(maps.Keys(dirty)) {
		n := dirty[node]
		if saved != nil && now.Sub(saved[node]) < saveEvery || !k.isDeclared(node) {
			k.world.markDirty(node) // later
			continue
		}
		if err := k.saveOne(ctx, node, n); err != nil {
			if ctx.Err() == nil {
				k.log.Warn("cannot save what a node reported; trying again", "node", node, "error", err)
			}
			k.world.markDirty(node)
		}
		if saved != nil {
			saved[node] = now
		}
	}
}

// saveOne writes the row of a node. Each connection of a node has a term, one
// more than that of the connection before: who was frozen, and believes that
// the node is still connected to it, does not write over who has it now.
func (k *keeper) saveOne(ctx context.Context, node string, n nodeWorld) error {
	key := worldPrefix + node
	old, revision, err := k.rows.Get(ctx, key)
	if err != nil {
		return err
	}
	var was savedWorld
	known := revision != 0 && json.Unmarshal(old, &was) == nil
	switch {
	case !known:
		was = savedWorld{}
	case was.Owner != k.self && was.Term > n.term && n.term != 0, was.Owner != k.self && was.Connected && !n.here:
		return nil // it went on to another process, which knows better
	}
	fresh := n.here && n.term == 0
	if fresh {
		n.term = was.Term + 1
	}
	row, err := encodeWorld(n)
	if err != nil {
		return err
	}
	ok, err := k.rows.Commit(ctx, map[string]int64{key: revision}, map[string][]byte{key: row})
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("row %s was changed at the same moment", key)
	}
	if fresh {
		k.world.setTerm(node, n.term)
	}
	k.mu.Lock()
	k.unsung = true
	k.mu.Unlock()
	return nil
}

// drop removes the row of a node whose object was deleted, soon.
func (k *keeper) drop(node string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drops[node] = true
}

// sweep removes the rows that shall go.
func (k *keeper) sweep(ctx context.Context) {
	k.mu.Lock()
	drops := slices.Sorted(maps.Keys(k.drops))
	clear(k.drops)
	k.mu.Unlock()
	for _, node := range drops {
		if k.isDeclared(node) {
			continue // it came back
		}
		if _, err := k.rows.Commit(ctx, nil, map[string][]byte{worldPrefix + node: nil}); err != nil {
			if ctx.Err() == nil {
				k.log.Warn("cannot remove what a deleted node reported; trying again", "node", node, "error", err)
			}
			k.drop(node)
		}
	}
}

func (k *keeper) loud() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.unsung
}

// beat tells others that we live and that something changed.
func (k *keeper) beat(ctx context.Context) error {
	k.mu.Lock()
	k.count++
	value := fmt.Appendf(nil, "%d %s %s", k.count, k.now().UTC().Format(time.RFC3339Nano), k.url)
	k.unsung = false
	k.mu.Unlock()
	_, err := k.rows.Commit(ctx, nil, map[string][]byte{beatPrefix + k.self: value})
	if err != nil {
		k.mu.Lock()
		k.unsung = true
		k.mu.Unlock()
	}
	return err
}
