package ipam

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// ErrExhausted: everything that could be given out is held by somebody.
var ErrExhausted = errors.New("nothing left to give out")

// attempts bounds how often one call competes with other writers.
const attempts = 200

// Numbers gives unique numbers of one kind to owners. Any number of processes
// may use the same kind over the same Rows at the same time.
//
// Rows, all under numbers/<kind>/:
//
//	o/<sha256 of owner>   the number of the owner
//	n/<number>            who holds it, or when it was given back
//	meta                  the next number never given out, and a count of releases
type Numbers struct {
	rows        Rows
	kind        string
	first, last uint32
}

// NewNumbers gives out numbers from first to last (both included, first > 0).
// kind names the table, such as "vni"; one kind must always be used with the
// same first.
func NewNumbers(rows Rows, kind string, first, last uint32) *Numbers {
	return &Numbers{rows: rows, kind: kind, first: first, last: last}
}

// holding is the row of one number.
type holding struct {
	Owner string `json:"owner,omitempty"`
	// Released orders numbers without owner: the smallest was free for longest.
	Released uint64 `json:"released,omitempty"`
}

type meta struct {
	Next     uint32 `json:"next"`
	Releases uint64 `json:"releases"`
}

func (n *Numbers) prefix() string { return "numbers/" + n.kind + "/" }
func (n *Numbers) metaKey() string {
	return n.prefix() + "meta"
}
func (n *Numbers) numberKey(v uint32) string {
	return fmt.Sprintf("%sn/%010d", n.prefix(), v)
}
func (n *Numbers) ownerKey(owner string) string {
	sum := sha256.Sum256([]byte(owner))
	return n.prefix() + "o/" + hex.EncodeToString(sum[:])
}

// Get returns the number of owner and allocates one if it has none. When it
// returns, the number is durable. Errors wrap ErrExhausted when all numbers
// are held.
func (n *Numbers) Get(ctx context.Context, owner string) (uint32, error) {
	var out uint32
	err := n.compete(ctx, "allocate", owner, func() (bool, error) {
		number, held, err := n.lookup(ctx, owner)
		if held || err != nil {
			out = number
			return held, err
		}
		out, held, err = n.allocate(ctx, owner)
		return held, err
	})
	if err != nil {
		return 0, err
	}
	return out, nil
}

// Release takes the number back from owner. It goes to the end of the queue:
// it is given out again only after every number that was never used and every
// one that was released before. An owner without a number is no error.
func (n *Numbers) Release(ctx context.Context, owner string) error {
	return n.compete(ctx, "release", owner, func() (bool, error) { return n.release(ctx, owner) })
}

// All returns every owner with its number.
func (n *Numbers) All(ctx context.Context) (map[string]uint32, error) {
	held, _, err := n.list(ctx)
	return held, err
}

// compete repeats try, with a growing random pause, until it says done.
func (n *Numbers) compete(ctx context.Context, verb, owner string, try func() (done bool, err error)) error {
	for i := range attempts {
		done, err := try()
		if err != nil {
			return fmt.Errorf("cannot %s a number of kind %s for %q: %w", verb, n.kind, owner, err)
		}
		if done {
			return nil
		}
		pause := time.NewTimer(rand.N(time.Duration(min(i+1, 20)) * time.Millisecond))
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("cannot %s a number of kind %s for %q: %w", verb, n.kind, owner, ctx.Err())
		case <-pause.C:
		}
	}
	return fmt.Errorf("cannot %s a number of kind %s for %q: %d times somebody else was first; try again", verb, n.kind, owner, attempts)
}

func (n *Numbers) lookup(ctx context.Context, owner string) (uint32, bool, error) {
	value, revision, err := n.rows.Get(ctx, n.ownerKey(owner))
	if err != nil || revision == 0 {
		return 0, false, err
	}
	var number uint32
	if err := json.Unmarshal(value, &number); err != nil {
		return 0, false, fmt.Errorf("row %s is damaged: %w", n.ownerKey(owner), err)
	}
	return number, true, nil
}

// allocate tries once to give owner, who has none, a number.
func (n *Numbers) allocate(ctx context.Context, owner string) (uint32, bool, error) {
	m, metaRevision, err := n.meta(ctx)
	if err != nil {
		return 0, false, err
	}
	number, numberRevision := m.Next, int64(0)
	expect := map[string]int64{n.ownerKey(owner): 0}
	put := map[string][]byte{}
	if m.Next <= n.last && m.Next >= n.first {
		m.Next++
		expect[n.metaKey()] = metaRevision
		put[n.metaKey()] = encode(m)
	} else {
		number, numberRevision, err = n.oldest(ctx)
		if err != nil || number == 0 {
			return 0, false, err
		}
	}
	expect[n.numberKey(number)] = numberRevision
	put[n.numberKey(number)] = encode(holding{Owner: owner})
	put[n.ownerKey(owner)] = encode(number)
	ok, err := n.rows.Commit(ctx, expect, put)
	return number, ok && err == nil, err
}

// oldest finds the number that was released first and its revision; 0 when
// somebody took it meanwhile.
func (n *Numbers) oldest(ctx context.Context) (uint32, int64, error) {
	held, free, err := n.list(ctx)
	if err != nil {
		return 0, 0, err
	}
	best, when := uint32(0), uint64(0)
	for number, released := range free {
		if number >= n.first && number <= n.last && (best == 0 || released < when) {
			best, when = number, released
		}
	}
	if best == 0 {
		return 0, 0, fmt.Errorf("%w: %d owners hold all numbers from %d to %d; remove some of them", ErrExhausted, len(held), n.first, n.last)
	}
	value, revision, err := n.rows.Get(ctx, n.numberKey(best))
	if err != nil || revision == 0 {
		return 0, 0, err
	}
	var h holding
	if err := json.Unmarshal(value, &h); err != nil {
		return 0, 0, fmt.Errorf("row %s is damaged: %w", n.numberKey(best), err)
	}
	if h.Owner != "" {
		return 0, 0, nil
	}
	return best, revision, nil
}

// release tries once.
func (n *Numbers) release(ctx context.Context, owner string) (bool, error) {
	value, ownerRevision, err := n.rows.Get(ctx, n.ownerKey(owner))
	if err != nil || ownerRevision == 0 {
		return err == nil, err
	}
	var number uint32
	if err := json.Unmarshal(value, &number); err != nil {
		return false, fmt.Errorf("row %s is damaged: %w", n.ownerKey(owner), err)
	}
	_, numberRevision, err := n.rows.Get(ctx, n.numberKey(number))
	if err != nil {
		return false, err
	}
	m, metaRevision, err := n.meta(ctx)
	if err != nil {
		return false, err
	}
	m.Releases++
	return n.rows.Commit(ctx,
		map[string]int64{n.ownerKey(owner): ownerRevision, n.numberKey(number): numberRevision, n.metaKey(): metaRevision},
		map[string][]byte{n.ownerKey(owner): nil, n.numberKey(number): encode(holding{Released: m.Releases}), n.metaKey(): encode(m)})
}

func (n *Numbers) meta(ctx context.Context) (meta, int64, error) {
	value, revision, err := n.rows.Get(ctx, n.metaKey())
	if err != nil || revision == 0 {
		return meta{Next: n.first}, 0, err
	}
	var m meta
	if err := json.Unmarshal(value, &m); err != nil {
		return meta{}, 0, fmt.Errorf("row %s is damaged: %w", n.metaKey(), err)
	}
	return m, revision, nil
}

// list reads all numbers: those that are held by owner, and when the others
// were released.
func (n *Numbers) list(ctx context.Context) (held map[string]uint32, free map[uint32]uint64, err error) {
	prefix := n.prefix() + "n/"
	rows, err := n.rows.List(ctx, prefix)
	if err != nil {
		return nil, nil, err
	}
	held, free = make(map[string]uint32, len(rows)), map[uint32]uint64{}
	for key, value := range rows {
		var number uint32
		var h holding
		if _, err := fmt.Sscanf(key[len(prefix):], "%d", &number); err != nil {
			return nil, nil, fmt.Errorf("row %s is not a number: %w", key, err)
		}
		if err := json.Unmarshal(value, &h); err != nil {
			return nil, nil, fmt.Errorf("row %s is damaged: %w", key, err)
		}
		if h.Owner != "" {
			held[h.Owner] = number
		} else {
			free[number] = h.Released
		}
	}
	return held, free, nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("ipam: cannot encode %T: %v", v, err)) // plain structs always encode
	}
	return b
}
