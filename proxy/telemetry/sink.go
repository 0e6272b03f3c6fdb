package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	// socketPatience is how long one chunk may take.
	socketPatience = 5 * time.Second
	// reopenEvery is how often it is looked whether a file was moved away, and
	// how long after a failure a file or a socket is tried again.
	reopenEvery = time.Second
)

// lines delivers chunks to a file, to the standard output or to a unix socket.
type lines struct {
	open func(ctx context.Context) (io.WriteCloser, error)
	// moved: another file is there now under the name.
	moved func(io.WriteCloser) bool
	// again: when who reads is gone, another may be there at once.
	again bool

	w      io.WriteCloser
	looked time.Time
	broken bool // the last line is not whole
	failed error
}

// newLines understands "stdout", "unix:/path" and a path.
func newLines(where string) *lines {
	if where == "stdout" {
		return &lines{
			open:  func(context.Context) (io.WriteCloser, error) { return keptOpen{os.Stdout}, nil },
			moved: func(io.WriteCloser) bool { return false },
		}
	}
	if path, ok := strings.CutPrefix(where, "unix:"); ok {
		return &lines{
			open: func(ctx context.Context) (io.WriteCloser, error) {
				d := net.Dialer{Timeout: socketPatience}
				c, err := d.DialContext(ctx, "unix", path)
				if err != nil {
					return nil, err
				}
				return patient{c}, nil
			},
			moved: func(io.WriteCloser) bool { return false },
			again: true,
		}
	}
	return &lines{
		open: func(context.Context) (io.WriteCloser, error) {
			return os.OpenFile(where, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		},
		moved: func(w io.WriteCloser) bool {
			mine, err := w.(*os.File).Stat()
			if err != nil {
				return true
			}
			there, err := os.Stat(where)
			return err != nil || !os.SameFile(mine, there)
		},
	}
}

// keptOpen is a file that is not ours to close.
type keptOpen struct{ io.Writer }

func (keptOpen) Close() error { return nil }

// patient bounds how long a write takes.
type patient struct{ net.Conn }

func (p patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(socketPatience)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

// deliver writes all or says how many lines were written. Of a reader that ended
// and came again nothing is lost that he had not begun to read.
func (l *lines) deliver(ctx context.Context, c chunk) (int, error) {
	n, err := l.write(ctx, c)
	if !l.again || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return n, err
	}
	l.looked = time.Time{}
	rest := c.b
	for range n {
		rest = rest[bytes.IndexByte(rest, '\n')+1:]
	}
	more, err := l.write(ctx, chunk{b: rest, n: c.n - n})
	return n + more, err
}

func (l *lines) write(ctx context.Context, c chunk) (int, error) {
	if now := time.Now(); now.Sub(l.looked) >= reopenEvery {
		l.looked = now
		if l.w != nil && l.moved(l.w) {
			l.close()
		}
		if l.w == nil {
			l.w, l.failed = l.open(ctx)
			l.broken = l.broken && l.w != nil && isFile(l.w)
		}
	}
	if l.w == nil {
		return 0, l.failed
	}
	b := c.b
	if l.broken {
		b = append([]byte{'\n'}, b...)
	}
	n, err := l.w.Write(b)
	if err == nil {
		l.broken = false
		return c.n, nil
	}
	written := b[:max(n, 0)]
	whole := strings.Count(string(written), "\n")
	if l.broken && whole > 0 {
		whole--
	}
	l.broken = l.broken && n == 0 || n > 0 && written[n-1] != '\n'
	l.failed = fmt.Errorf("write: %w", errors.Join(err, l.w.Close()))
	l.w = nil
	return whole, l.failed
}

func isFile(w io.WriteCloser) bool {
	_, ok := w.(*os.File)
	return ok
}

func (l *lines) close() {
	if l.w != nil {
		l.w.Close()
		l.w = nil
	}
}
