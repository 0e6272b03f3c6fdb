package engine

import "math/bits"

// A tick of the wheel is about 4 ms; a revolution is about 17 s. A timer that
// is further away stays in its place for several revolutions.
const (
	tickShift = 22
	wheelSize = 4096
)

// Timer calls its Expirer once, at or at most one tick after its time. The zero
// Timer is not armed.
type Timer struct {
	when       int64
	next, prev *Timer
	whose      Expirer
}

// Expirer is told that its Timer has run out.
type Expirer interface{ Expire(t *Timer) }

// Armed says whether t will fire.
func (t *Timer) Armed() bool { return t.next != nil }

// When is the time that t was last set to.
func (t *Timer) When() int64 { return t.when }

// Arm sets t to fire at when, in place of an earlier setting.
func (l *Loop) Arm(t *Timer, when int64, whose Expirer) {
	if t.next != nil {
		if t.when>>tickShift == when>>tickShift {
			t.when, t.whose = when, whose
			return
		}
		l.timers.remove(t)
	}
	t.when, t.whose = when, whose
	l.timers.insert(t)
}

// Disarm stops t, if it is armed.
func (l *Loop) Disarm(t *Timer) {
	if t.next != nil {
		l.timers.remove(t)
		t.whose = nil
	}
}

// wheel is a hashed timing wheel: a ring of lists, one for each tick.
type wheel struct {
	lists [wheelSize]Timer // heads of rings
	used  [wheelSize / 64]uint64
	tick  int64 // all before it have fired
	armed int
}

func (w *wheel) init() {
	for i := range w.lists {
		w.lists[i].next, w.lists[i].prev = &w.lists[i], &w.lists[i]
	}
}

func (w *wheel) insert(t *Timer) {
	tick := max(t.when>>tickShift, w.tick)
	i := tick & (wheelSize - 1)
	head := &w.lists[i]
	t.next, t.prev = head, head.prev
	head.prev.next = t
	head.prev = t
	w.used[i/64] |= 1 << (i % 64)
	w.armed++
}

func (w *wheel) remove(t *Timer) {
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
	w.armed--
}

// advance fires what is due.
func (w *wheel) advance(now int64) {
	to := now >> tickShift
	if w.armed == 0 {
		w.tick = to
		return
	}
	if to-w.tick >= wheelSize {
		w.tick = to - wheelSize + 1
	}
	// The current tick is looked at, too, and again in the next turn.
	for ; ; w.tick++ {
		if i := w.tick & (wheelSize - 1); w.used[i/64]&(1<<(i%64)) != 0 {
			w.fire(i, now)
		}
		if w.tick >= to {
			return
		}
	}
}

func (w *wheel) fire(i, now int64) {
	head := &w.lists[i]
	for t := head.next; t != head; {
		following := t.next
		if t.when <= now {
			w.remove(t)
			t.whose.Expire(t)
			// What was told may have removed the following one.
			if following.next == nil {
				following = head.next
			}
		}
		t = following
	}
	if head.next == head {
		w.used[i/64] &^= 1 << (i % 64)
	}
}

// next is a time at which somebody should look again, not after the first
// timer fires.
func (w *wheel) next() (int64, bool) {
	if w.armed == 0 {
		return 0, false
	}
	start := w.tick & (wheelSize - 1)
	for k := int64(0); k <= wheelSize/64; k++ {
		word := (start/64 + k) % (wheelSize / 64)
		set := w.used[word]
		if k == 0 {
			set &= ^uint64(0) << (start % 64)
		} else if k == wheelSize/64 {
			set &= 1<<(start%64) - 1
		}
		if set == 0 {
			continue
		}
		i := word*64 + int64(bits.TrailingZeros64(set))
		ahead := (i - start + wheelSize) % wheelSize
		return (w.tick + ahead + 1) << tickShift, true
	}
	return 0, false
}
