package engine

import (
	"iter"
	"runtime/debug"
)

// Runner is a piece of straight-line code that a Task runs.
type Runner interface {
	Run(t *Task)
	// Abort is called in place of the rest of Run when Run panicked.
	Abort()
}

// Task is a coroutine of a Loop. Its code runs until it parks, and goes on
// there when somebody woke it. A Task that has ended is used again.
type Task struct {
	loop   *Loop
	runner Runner
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	// queued: it is among the ready ones. A task that is woken while it runs is
	// resumed once more; code that parks looks at its condition in a loop.
	queued bool
	place  int // in loop.working
	timer  Timer
	// Expired is set when the time of the last Deadline ran out.
	Expired bool
}

// Go has r run by a coroutine in this turn.
func (l *Loop) Go(r Runner) *Task {
	var t *Task
	if n := len(l.idle); n > 0 {
		t = l.idle[n-1]
		l.idle[n-1] = nil
		l.idle = l.idle[:n-1]
		l.idlest = min(l.idlest, n-1)
	} else {
		t = &Task{loop: l}
		l.tasks++
	}
	t.runner, t.place = r, len(l.working)
	l.working = append(l.working, t)
	t.Wake()
	return t
}

// Trim gives up memory, of buffers and coroutines, that was not needed since it
// was last called: half of it, so that what is needed now and then stays. It
// says how many bytes that is, about.
func (l *Loop) Trim() (bytes int) {
	bytes = l.buffers.trim()
	n := len(l.idle) - (l.idlest+1)/2
	for i, t := range l.idle[n:] {
		t.stop()
		l.tasks--
		l.idle[n+i] = nil
		bytes += stack
	}
	l.idle = l.idle[:n]
	l.idlest = n
	l.trimPipes()
	return bytes
}

// stack is what a coroutine has, about.
const stack = 8 << 10

// Tasks says how many coroutines there are, and how many of them have no work.
func (l *Loop) Tasks() (all, idle int) { return l.tasks, len(l.idle) }

// Wake has t resumed in this turn or the next. It may be called at any time
// and often.
func (t *Task) Wake() {
	if !t.queued {
		t.queued = true
		t.loop.ready = append(t.loop.ready, t)
	}
}

// Park gives the worker to others until t is woken.
func (t *Task) Park() {
	if !t.yield(struct{}{}) {
		panic(stopping{})
	}
}

// Deadline wakes t at when, with Expired set; 0 ends an earlier Deadline.
func (t *Task) Deadline(when int64) {
	t.Expired = false
	if when == 0 {
		t.loop.Disarm(&t.timer)
		return
	}
	t.loop.Arm(&t.timer, when, t)
}

// Expire implements Expirer.
func (t *Task) Expire(*Timer) {
	t.Expired = true
	t.Wake()
}

func (t *Task) resume() {
	t.queued = false
	if t.runner == nil {
		return // it ended after it was woken
	}
	if t.next == nil {
		// Here, because a coroutine belongs to the thread that the loop is locked to.
		t.next, t.stop = iter.Pull(t.body)
	}
	t.next()
}

// stopping unwinds the code of tasks when their loop ends.
type stopping struct{}

func (t *Task) body(yield func(struct{}) bool) {
	t.yield = yield
	for {
		t.run()
		t.done()
		t.loop.idle = append(t.loop.idle, t)
		if !yield(struct{}{}) {
			return
		}
	}
}

// done: t has no work any more.
func (t *Task) done() {
	t.Deadline(0)
	t.runner = nil
	l := t.loop
	last := l.working[len(l.working)-1]
	l.working[t.place], last.place = last, t.place
	l.working[len(l.working)-1] = nil
	l.working = l.working[:len(l.working)-1]
}

func (t *Task) run() {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if _, end := v.(stopping); !end {
			t.loop.Panics++
			if t.loop.OnPanic != nil {
				t.loop.OnPanic(v, debug.Stack())
			}
		}
		t.runner.Abort()
	}()
	t.runner.Run(t)
}

// endTasks ends the coroutines of a loop that runs no more: those that are parked
// unwind, and are aborted.
func (l *Loop) endTasks() {
	for len(l.working) > 0 {
		t := l.working[len(l.working)-1]
		if t.next == nil { // it did not begin
			r := t.runner
			t.done()
			r.Abort()
			continue
		}
		if t.stop(); t.runner != nil {
			t.done()
		}
	}
	for _, t := range l.idle {
		t.stop()
	}
	l.idle = nil
}

// Within wakes t at by, with Expired set, or earlier: an earlier time that was
// set before stays, so that who waits again and again does not pay for it. Who
// is woken with Expired looks himself what the time is.
func (t *Task) Within(by int64) {
	if !t.timer.Armed() || t.timer.when > by {
		t.loop.Arm(&t.timer, by, t)
	}
}
