package dns

import (
	"container/list"
	"sync"
)

// Bounds of what one Network has remembered.
const (
	cacheEntries = 4096
	cacheBytes   = 1 << 20
)

// cache remembers answers of others for one Network; the one that was used
// longest ago goes first.
type cache struct {
	mu    sync.Mutex
	byKey map[string]*list.Element
	used  *list.List // of *cached, the last used first
	bytes int
}

type cached struct {
	key    string
	answer *answer
}

func newCache() *cache { return &cache{byKey: map[string]*list.Element{}, used: list.New()} }

// cacheKey appends to b what tells answers apart. The name comes last, as it
// has no fixed length.
func cacheKey(b []byte, name []byte, kind uint16, do, cd bool) []byte {
	b = append(b, byte(kind>>8), byte(kind), byte(btoi(do)|btoi(cd)<<1))
	return append(b, name...)
}

// get returns what is remembered and still good, without allocating.
func (c *cache) get(key []byte, now int64) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[string(key)]
	if e == nil {
		return nil
	}
	a := e.Value.(*cached).answer
	if a.expires <= now {
		c.remove(e)
		return nil
	}
	c.used.MoveToFront(e)
	return a
}

func (c *cache) put(key string, a *answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[key]; e != nil {
		c.remove(e)
	}
	c.byKey[key] = c.used.PushFront(&cached{key, a})
	c.bytes += len(key) + len(a.body)
	for c.used.Len() > cacheEntries || c.bytes > cacheBytes {
		c.remove(c.used.Back())
	}
}

func (c *cache) remove(e *list.Element) {
	x := c.used.Remove(e).(*cached)
	delete(c.byKey, x.key)
	c.bytes -= len(x.key) + len(x.answer.body)
}

// len is how many answers are remembered.
func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used.Len()
}
