package http2

import (
	"math/rand/v2"
	"testing"

	"moire.dev/moire/proxy/message"
)

// TestStreamTable compares the table with a map, with streams that live long
// among many that do not.
func TestStreamTable(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var table streamTable
	all := map[uint32]*Stream{}
	var ids []uint32
	next := uint32(1)
	for range 200000 {
		if len(ids) < 60 && r.IntN(2) == 0 {
			s := &Stream{ID: next}
			next += 2 * uint32(1+r.IntN(40))
			table.add(s)
			all[s.ID] = s
			ids = append(ids, s.ID)
			continue
		}
		if len(ids) == 0 {
			continue
		}
		i := r.IntN(len(ids))
		id := ids[i]
		if table.find(id) != all[id] || table.find(id+2*uint32(len(table.slots))) != all[id+2*uint32(len(table.slots))] {
			t.Fatalf("stream %d is not found", id)
		}
		if r.IntN(3) > 0 {
			table.remove(all[id])
			delete(all, id)
			ids[i] = ids[len(ids)-1]
			ids = ids[:len(ids)-1]
			if table.find(id) != nil {
				t.Fatalf("stream %d is still found", id)
			}
		}
	}
	for id, s := range all {
		if table.find(id) != s {
			t.Fatalf("stream %d is not found", id)
		}
	}
	if table.count != len(all) {
		t.Errorf("%d streams, want %d", table.count, len(all))
	}
}

// TestPool: what comes back is empty, and nothing large is kept.
func TestPool(t *testing.T) {
	var p Pool
	s := p.get()
	*s = Stream{ID: 7, Owner: 8, flags: aborted, arena: make([]byte, 100), Head: message.Head{Status: 200, Method: []byte("x")},
		Trailers: make([]message.Field, 3), held: 4, code: Cancel, reason: "r", since: 9}
	p.put(s)
	again := p.get()
	if again != s || s.ID != 0 || s.Owner != nil || s.flags != 0 || len(s.arena) != 0 || s.Head.Status != 0 || s.Head.Method != nil ||
		s.Head.Length != -1 || len(s.Trailers) != 0 || s.held != 0 || s.code != 0 || s.reason != "" || s.next != nil || p.count != 0 {
		t.Errorf("%+v", again)
	}
	s.arena = make([]byte, poolArena+1)
	p.put(s)
	if p.count != 0 {
		t.Error("a large arena is kept")
	}
	for range 2000 {
		p.put(new(Stream))
		p.putBuffer(make([]byte, 100000))
	}
	if p.count > poolStreams || p.bytes > poolBytes || len(p.buffers) > poolBytes/100000 {
		t.Errorf("%d streams, %d bytes are kept", p.count, p.bytes)
	}
	if b := p.buffer(50000); cap(b) != 100000 || len(b) != 0 || p.bytes != 100000*len(p.buffers) {
		t.Errorf("a buffer of %d bytes", cap(b))
	}
	if b := p.buffer(200000); cap(b) < 200000 {
		t.Errorf("a buffer of %d bytes", cap(b))
	}
}

// TestSharedPool: streams and buffers go from one connection to another.
func TestSharedPool(t *testing.T) {
	pool := new(Pool)
	for range 50 {
		p := newPeer(t, Config{})
		p.c.pool = pool
		var held []*Stream
		for range 10 {
			held = append(held, p.open(true))
		}
		for _, s := range held {
			p.c.WriteHead(s, answer(200), false)
			p.c.WriteData(s, make([]byte, 3000), true, 0)
			p.c.Release(s)
		}
		p.take()
		if p.c.out != nil || len(p.c.Out()) != 0 {
			t.Fatal("an empty Out keeps a buffer")
		}
	}
	if pool.count != 10 {
		t.Errorf("%d streams were made", pool.count)
	}
}

// TestInitAgain: a used Conn is as good as new.
func TestInitAgain(t *testing.T) {
	p := newPeer(t, Config{})
	p.open(true)
	p.WriteRawFrame(1, 0, 3, p.encode(plain...)[:2])
	p.give()
	p.WriteRawFrame(5, 0, 3, nil)
	p.fails(ProtocolError)
	q := newPeer(t, Config{})
	c := p.c
	c.Init(&Config{}, nil, 0)
	q.c = c
	q.in.WriteString(Preface)
	q.WriteSettings()
	q.give()
	if s := q.open(true); textOf(&s.Head) != "GET http a / none" || q.c.Active() != 1 {
		t.Error(textOf(&s.Head))
	}
}
