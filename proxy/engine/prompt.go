package engine

import "golang.org/x/sys/unix"

// slice is how long the kernel lets a worker run before another thread of equal
// rank has its turn, nanoseconds. The default is some milliseconds.
const slice = 100_000

// prompt asks the kernel to wake this thread at once, also when another one that
// has a longer slice runs (Linux 6.12 and later): what the process does beside,
// such as writing records, then does not stand in the way of a request. A kernel
// that does not know this takes no notice.
func prompt() (back func()) {
	was, err := unix.SchedGetAttr(0, 0)
	if err != nil || was.Policy != unix.SCHED_NORMAL {
		return func() {}
	}
	is := *was
	is.Runtime = slice
	if unix.SchedSetAttr(0, &is, 0) != nil {
		return func() {}
	}
	return func() { unix.SchedSetAttr(0, was, 0) }
}
