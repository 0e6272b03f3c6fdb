package door

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// A frame is the length of its body (4 bytes), its kind (1 byte) and its body,
// JSON. The descriptors of a socketsFrame come with its bytes.
type kind byte

const (
	// From the agent.
	socketsFrame kind = 1 + iota // some of the descriptors of a namespace
	goneFrame                    // a namespace that is no more, or is sent anew
	configFrame                  // a configuration: with it, what came before counts
	drainFrame                   // another proxy serves
)

const (
	// From the proxy.
	helloFrame  kind = 16 + iota // the first one
	answerFrame                  // to a configFrame
	aliveFrame                   // every worker's loop has turned
)

const (
	frameHead = 5
	// maxFrame is more than any node's configuration.
	maxFrame = 256 << 20
	// fdsAtOnce is fewer than the kernel's limit of 253.
	fdsAtOnce = 200
	// fdsWaiting is how many descriptors may come before what they are.
	fdsWaiting = 4 * fdsAtOnce
)

// protocol is the version that both ends must speak.
const protocol = 1

type hello struct {
	Protocol int    `json:"protocol"`
	PID      int    `json:"pid"`
	Workers  int    `json:"workers"`
	Version  string `json:"version"`
	Draining bool   `json:"draining,omitempty"`
}

type sockets struct {
	Namespace string `json:"namespace"`
	// Of the descriptors that come with it: is the first the namespace itself, how
	// many listen for what goes out, how many for what comes in; in this order.
	Itself   bool `json:"itself,omitempty"`
	Outbound int  `json:"outbound,omitempty"`
	Inbound  int  `json:"inbound,omitempty"`
}

type gone struct {
	Namespace string `json:"namespace"`
}

type answer struct {
	Number  uint64 `json:"number"`
	Refused string `json:"refused,omitempty"`
}

type alive struct {
	Ejected []Ejection `json:"ejected,omitempty"`
}

// frame encodes one.
func frame(k kind, body any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	if len(b) > maxFrame {
		return nil, fmt.Errorf("a message of %d bytes is too large", len(b))
	}
	out := make([]byte, frameHead, frameHead+len(b))
	binary.BigEndian.PutUint32(out, uint32(len(b)))
	out[4] = byte(k)
	return append(out, b...), nil
}

// reader reads frames and the descriptors that come with them.
type reader struct {
	c   *net.UnixConn
	b   []byte // read and not yet taken
	fds []int  // received and not yet taken, in order
	oob []byte
}

func newReader(c *net.UnixConn) *reader {
	return &reader{c: c, oob: make([]byte, unix.CmsgSpace(253*4))}
}

// next is the next frame; its body stays valid until the next call.
func (r *reader) next() (kind, []byte, error) {
	for {
		if len(r.b) >= frameHead {
			n := int(binary.BigEndian.Uint32(r.b))
			if n > maxFrame {
				return 0, nil, fmt.Errorf("a message of %d bytes", n)
			}
			if len(r.b) >= frameHead+n {
				k, body := kind(r.b[4]), r.b[frameHead:frameHead+n]
				r.b = r.b[frameHead+n:]
				return k, body, nil
			}
		}
		if err := r.fill(); err != nil {
			return 0, nil, err
		}
	}
}

// fill reads once. The room for it grows with what came, never with what a length
// promises.
func (r *reader) fill() error {
	if cap(r.b)-len(r.b) < 4096 {
		r.b = append(make([]byte, 0, 2*len(r.b)+64<<10), r.b...)
	}
	n, oobn, flags, _, err := r.c.ReadMsgUnix(r.b[len(r.b):cap(r.b)], r.oob)
	if err != nil {
		return err
	}
	if err := r.take(r.oob[:oobn]); err != nil {
		return err
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return errors.New("descriptors were lost; are too many open?")
	}
	if n == 0 {
		return io.EOF
	}
	r.b = r.b[:len(r.b)+n]
	return nil
}

// take keeps the descriptors that came.
func (r *reader) take(oob []byte) error {
	if len(oob) == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return err
		}
		r.fds = append(r.fds, fds...) // ReadMsgUnix has them closed on exec
	}
	if len(r.fds) > fdsWaiting {
		return fmt.Errorf("%d descriptors came that nobody announced", len(r.fds))
	}
	return nil
}

// takeFDs is the next n descriptors.
func (r *reader) takeFDs(n int) ([]int, error) {
	if n < 0 || n > len(r.fds) {
		return nil, fmt.Errorf("%d descriptors were announced and %d came", n, len(r.fds))
	}
	out := append([]int(nil), r.fds[:n]...)
	r.fds = append(r.fds[:0], r.fds[n:]...)
	return out, nil
}

// close closes the descriptors that nobody took.
func (r *reader) close() {
	closeFDs(r.fds)
	r.fds = nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// sendWith writes a frame with descriptors. Guard is called before each try to
// give them to the kernel and says whether they are still good; it returns what
// ends its protection. After that the descriptors are the kernel's.
func sendWith(c *net.UnixConn, b []byte, fds []int, guard func() (release func(), ok bool)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	n := 0
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		release, ok := guard()
		if !ok {
			sendErr = errGone
			return true
		}
		n, sendErr = unix.SendmsgN(int(fd), b, unix.UnixRights(fds...), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		release()
		return sendErr != unix.EAGAIN && sendErr != unix.EINTR
	})
	if err == nil {
		err = sendErr
	}
	if err != nil {
		return err
	}
	_, err = c.Write(b[n:])
	return err
}
