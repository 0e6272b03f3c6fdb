package tls

import (
	"io"
	"net"
	"time"
)

// memory is the inner connection of a Filter: ciphertext that came, and
// ciphertext that is to go.
type memory struct {
	in, out queue
	left    int          // bytes of the record that is being read that were not yet given
	ended   bool         // no more will come
	cut     bool         // crypto/tls was told of that end
	wait    func() error // parks until more came; nil: do not wait
	remote  address
}

// address is the peer's, by which crypto/tls remembers sessions where there is
// no server name.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// wouldBlock is temporary, so crypto/tls goes on after it.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "tls: more bytes are needed" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

var errWouldBlock net.Error = wouldBlock{}

const (
	recordHeader = 5
	// maxRecord is the most bytes in a record that crypto/tls takes.
	maxRecord = 16384 + 2048
)

// record is how many bytes the first record of in has, its header included; 0:
// it is not whole yet. What cannot be a record is given as it is, to be refused.
func (m *memory) record() int {
	b := m.in.bytes()
	if len(b) == 0 {
		return 0
	}
	if b[0] < 20 || b[0] > 23 || len(b) > 1 && b[1] != 3 {
		return len(b)
	}
	if len(b) < recordHeader {
		return 0
	}
	n := int(b[3])<<8 | int(b[4])
	if n > maxRecord {
		return len(b)
	}
	if len(b) < recordHeader+n {
		return 0
	}
	return recordHeader + n
}

// Read gives bytes of one record at a time, and only when it is whole: so
// crypto/tls never holds half of one, and its buffer is empty between records.
func (m *memory) Read(p []byte) (int, error) {
	for m.left == 0 {
		if m.left = m.record(); m.left > 0 {
			break
		}
		switch {
		case m.ended:
			m.cut = true
			return 0, io.EOF
		case m.wait == nil:
			return 0, errWouldBlock
		}
		if err := m.wait(); err != nil {
			return 0, err
		}
	}
	n := copy(p, m.in.bytes()[:m.left])
	m.in.consume(n)
	m.left -= n
	return n, nil
}

func (m *memory) Write(p []byte) (int, error) {
	m.out.add(p)
	return len(p), nil
}

func (m *memory) Close() error                     { return nil }
func (m *memory) LocalAddr() net.Addr              { return address("") }
func (m *memory) RemoteAddr() net.Addr             { return m.remote }
func (m *memory) SetDeadline(time.Time) error      { return nil }
func (m *memory) SetReadDeadline(time.Time) error  { return nil }
func (m *memory) SetWriteDeadline(time.Time) error { return nil }
