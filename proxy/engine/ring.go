package engine

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These are what the kernel's io_uring.h calls IORING_SETUP_CQSIZE and so on.
const (
	setupCQSize       = 1 << 3
	setupDisabled     = 1 << 6
	setupSubmitAll    = 1 << 7
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13

	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1
	featFastPoll   = 1 << 5
	featExtArg     = 1 << 8

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	registerEnable     = 12
	registerBufferRing = 22

	offsetSQEs = 0x10000000

	opcodePollAdd = 6
	opcodeCancel  = 14
	opcodeClose   = 19
	opcodeSend    = 26
	opcodeRecv    = 27

	sqeBufferSelect = 1 << 5
	sqeSkipSuccess  = 1 << 6

	cancelAll = 1 << 0
	cancelFD  = 1 << 1
	cancelAny = 1 << 2

	pollMulti     = 1 << 0
	recvMultishot = 1 << 1

	cqeBuffer   = 1 << 0
	cqeMore     = 1 << 1
	cqeNonEmpty = 1 << 2
)

const (
	ringEntries = 256
	ringEvents  = 2048
	// ringBuffers of ringBuffer bytes are what the kernel receives into.
	ringBuffers = 128
	ringBuffer  = 2 << 10
)

// sqe is a request to the kernel.
type sqe struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off           uint64
	addr          uint64
	len           uint32
	opFlags       uint32
	data          uint64
	group         uint16
	_             uint16
	_             int32
	_             [2]uint64
}

// cqe is what came of one.
type cqe struct {
	data  uint64
	res   int32
	flags uint32
}

type ringOffsets struct {
	head, tail, mask, entries uint32
	a, b, c, _                uint32 // flags, dropped, array; or overflow, cqes, flags
	_                         uint64
}

type ringParams struct {
	sqEntries, cqEntries, flags, _, _, features, _ uint32
	_                                              [3]uint32
	sq, cq                                         ringOffsets
}

type ringBufferEntry struct {
	addr uint64
	len  uint32
	id   uint16
	tail uint16 // of the first entry: the ring's tail
}

// ring is io_uring: one call a turn hands in all that is to be done and waits.
// What arrives on sockets comes in buffers that the kernel takes from a ring of
// them. It is used by the thread that enabled it only.
type ring struct {
	fd             int
	memory, queue  []byte // mapped
	sqes           []sqe
	sqHead, sqTail *uint32
	tail, handed   uint32 // of sqes: filled in, and given to the kernel
	late           []sqe  // requests for which there was no room
	cqes           []cqe
	cqHead, cqTail *uint32

	buffers  []byte
	free     []ringBufferEntry
	freeMem  []byte
	freeTail uint16

	timeout unix.Timespec
	arg     struct {
		mask    uint64
		_, _    uint32
		timeout uint64
	}
	enabled bool
}

// openRing makes a ring that is still disabled. An error says that this kernel
// has none, forbids it, or lacks something that is needed (Linux 6.1).
func openRing() (r *ring, err error) {
	p := ringParams{cqEntries: ringEvents,
		flags: setupCQSize | setupDisabled | setupSubmitAll | setupSingleIssuer | setupDeferTaskrun}
	fd, _, errno := syscall.RawSyscall(unix.SYS_IO_URING_SETUP, ringEntries, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r = &ring{fd: int(fd)}
	defer func() {
		if err != nil {
			r.close()
			r = nil
		}
	}()
	const needed = featSingleMmap | featNoDrop | featFastPoll | featExtArg
	if p.features&needed != needed {
		return r, fmt.Errorf("io_uring: the kernel lacks features: %#x", p.features)
	}
	size := max(p.sq.c+p.sqEntries*4, p.cq.b+p.cqEntries*uint32(unsafe.Sizeof(cqe{})))
	const protect, shared = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.memory, err = unix.Mmap(r.fd, 0, int(size), protect, shared); err != nil {
		return r, fmt.Errorf("io_uring: mmap: %w", err)
	}
	if r.queue, err = unix.Mmap(r.fd, offsetSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), protect, shared); err != nil {
		return r, fmt.Errorf("io_uring: mmap: %w", err)
	}
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[at])) }
	r.sqHead, r.sqTail, r.cqHead, r.cqTail = word(p.sq.head), word(p.sq.tail), word(p.cq.head), word(p.cq.tail)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.queue[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.memory[p.cq.b])), p.cqEntries)
	for i, array := uint32(0), unsafe.Slice(word(p.sq.c), p.sqEntries); i < p.sqEntries; i++ {
		array[i] = i
	}
	return r, r.openBuffers()
}

func (r *ring) openBuffers() (err error) {
	const protect, private = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	if r.buffers, err = unix.Mmap(-1, 0, ringBuffers*ringBuffer, protect, private); err != nil {
		return fmt.Errorf("io_uring: mmap: %w", err)
	}
	if r.freeMem, err = unix.Mmap(-1, 0, ringBuffers*int(unsafe.Sizeof(ringBufferEntry{})), protect, private); err != nil {
		return fmt.Errorf("io_uring: mmap: %w", err)
	}
	reg := struct {
		addr    uint64
		entries uint32
		group   uint16
		flags   uint16
		_       [3]uint64
	}{addr: uint64(uintptr(unsafe.Pointer(&r.freeMem[0]))), entries: ringBuffers}
	if err := r.register(registerBufferRing, unsafe.Pointer(&reg), 1); err != nil {
		return err
	}
	r.free = unsafe.Slice((*ringBufferEntry)(unsafe.Pointer(&r.freeMem[0])), ringBuffers)
	for i := range ringBuffers {
		r.recycle(uint16(i))
	}
	return nil
}

func (r *ring) register(what uintptr, arg unsafe.Pointer, n uintptr) error {
	_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), what, uintptr(arg), n, 0, 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_register %d: %w", what, errno)
	}
	return nil
}

// enable makes the calling thread the one that uses the ring.
func (r *ring) enable() error {
	if err := r.register(registerEnable, nil, 0); err != nil {
		return err
	}
	r.enabled = true
	return nil
}

func (r *ring) close() {
	unix.Close(r.fd)
	for _, m := range [][]byte{r.memory, r.queue, r.buffers, r.freeMem} {
		if m != nil {
			unix.Munmap(m)
		}
	}
	r.enabled = false
}

// recycle gives a buffer back to the kernel.
func (r *ring) recycle(id uint16) {
	e := &r.free[r.freeTail&(ringBuffers-1)]
	e.addr = uint64(uintptr(unsafe.Pointer(&r.buffers[int(id)*ringBuffer])))
	e.len, e.id = ringBuffer, id
	r.freeTail++
	// A store of 16 bits that is seen after those before it: the words around it
	// are ours alone.
	tail := (*uint32)(unsafe.Pointer(&r.freeMem[12]))
	atomic.StoreUint32(tail, uint32(r.free[0].id)|uint32(r.freeTail)<<16)
}

func (r *ring) buffer(id uint16, n int32) []byte {
	return r.buffers[int(id)*ringBuffer:][:n]
}

// request is a new one, to be filled in at once.
func (r *ring) request(opcode uint8, fd int, data uint64) *sqe {
	if r.full() && len(r.late) == 0 {
		r.enter(0, 0, 0)
	}
	if r.full() || len(r.late) > 0 { // the kernel is out of memory
		r.late = append(r.late, sqe{opcode: opcode, fd: int32(fd), data: data})
		return &r.late[len(r.late)-1]
	}
	e := &r.sqes[r.tail&uint32(len(r.sqes)-1)]
	*e = sqe{opcode: opcode, fd: int32(fd), data: data}
	r.tail++
	return e
}

func (r *ring) full() bool { return r.tail-atomic.LoadUint32(r.sqHead) == uint32(len(r.sqes)) }

// taken says whether the kernel has taken all requests.
func (r *ring) taken() bool { return r.handed == r.tail && len(r.late) == 0 }

// wait hands in what was requested and waits at most d nanoseconds for
// something to come; less than 0 is for ever.
func (r *ring) wait(d int64) error {
	if d == 0 || len(r.late) > 0 || atomic.LoadUint32(r.cqTail) != *r.cqHead {
		return r.enter(0, enterGetEvents, 0)
	}
	r.arg.timeout = 0
	if d > 0 {
		r.timeout = unix.NsecToTimespec(d)
		r.arg.timeout = uint64(uintptr(unsafe.Pointer(&r.timeout)))
	}
	return r.enter(1, enterGetEvents|enterExtArg, unsafe.Sizeof(r.arg))
}

func (r *ring) enter(least, flags, size uintptr) error {
	for len(r.late) > 0 && !r.full() {
		r.sqes[r.tail&uint32(len(r.sqes)-1)] = r.late[0]
		r.late = r.late[1:]
		r.tail++
	}
	atomic.StoreUint32(r.sqTail, r.tail)
	var arg uintptr
	if size != 0 {
		arg = uintptr(unsafe.Pointer(&r.arg))
	}
	var n uintptr
	var errno syscall.Errno
	if least == 0 {
		n, _, errno = syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.tail-r.handed), 0, flags, arg, size)
	} else {
		// It may block: the runtime has to know.
		n, _, errno = syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.tail-r.handed), least, flags, arg, size)
	}
	switch errno {
	case 0:
		r.handed += uint32(n)
		return nil
	case unix.EINTR, unix.ETIME, unix.EAGAIN, unix.EBUSY:
		return nil
	}
	return fmt.Errorf("io_uring_enter: %w", errno)
}
