package smuggle

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Tap stands between the proxy and one back end, passes every byte on, and
// keeps what passed.
type Tap struct {
	listener net.Listener
	backend  string

	mu    sync.Mutex
	pipes map[*pipe]bool
}

// pipe is one connection of the proxy to the back end.
type pipe struct {
	up, down bytes.Buffer
	closed   bool
}

// NewTap listens on address and passes on to backend until Close.
func NewTap(address, backend string) (*Tap, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	t := &Tap{listener: l, backend: backend, pipes: map[*pipe]bool{}}
	go t.accept()
	return t, nil
}

// Close stops listening; connections end with their ends.
func (t *Tap) Close() error { return t.listener.Close() }

func (t *Tap) accept() {
	for {
		c, err := t.listener.Accept()
		if err != nil {
			return
		}
		b, err := net.DialTimeout("tcp", t.backend, 5*time.Second)
		if err != nil {
			c.Close()
			continue
		}
		p := &pipe{}
		t.mu.Lock()
		t.pipes[p] = true
		t.mu.Unlock()
		go t.pass(c, b, p, &p.up)
		go t.pass(b, c, p, &p.down)
	}
}

// pass copies one direction. The end of either ends both, as a back end that
// closes does.
func (t *Tap) pass(from, to net.Conn, p *pipe, kept *bytes.Buffer) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			t.mu.Lock()
			kept.Write(b[:n])
			t.mu.Unlock()
			if _, err := to.Write(b[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	t.mu.Lock()
	p.closed = true
	t.mu.Unlock()
}

// Passed is what passed on the connections since the last Reset.
type Passed struct {
	// Forwarded requests, by their stamps; Answers by status lines, without 1xx.
	Forwarded, Answers int
	// Views are what the back end says it saw, in order per connection.
	Views []View
	// Up and Down are the bytes of all connections.
	Up, Down []byte
}

// View is what a back end saw of one request.
type View struct {
	Stamp, Route, Method, Host string
	// Answered is the status that the back end gave.
	Answered int
	// Norm is the path as the back end would use it to find a file; empty: as Target.
	Norm   string
	Target string
}

// viewName is the field in which back ends tell what they saw:
// stamp|route|method|host|norm|target.
const viewName = "X-Saw"

func parseView(s string) View {
	f := strings.SplitN(s, "|", 6)
	for len(f) < 6 {
		f = append(f, "")
	}
	v := View{Stamp: f[0], Route: f[1], Method: f[2], Host: f[3], Norm: f[4], Target: f[5]}
	if t := strings.Fields(v.Target); len(t) > 1 { // a whole request line
		v.Target = t[1]
	}
	if v.Norm == "" {
		v.Norm = v.Target
	}
	return v
}

// Passed sums up what passed since Reset, of requests stamped with stamp.
func (t *Tap) Passed(stamp string) Passed {
	t.mu.Lock()
	defer t.mu.Unlock()
	var s Passed
	for p := range t.pipes {
		up, down := p.up.Bytes(), p.down.Bytes()
		s.Forwarded += bytes.Count(up, []byte(stamp))
		status := 0
		for line := range bytes.Lines(down) {
			if i := bytes.Index(line, []byte("HTTP/1.")); i >= 0 && len(line) > i+9 && line[i+8] == ' ' {
				status, _ = strconv.Atoi(string(line[i+9 : min(len(line), i+12)]))
				if line[i+9] != '1' || bytes.HasPrefix(line[i+9:], []byte("101")) {
					s.Answers++
				}
			}
			if name, value, ok := strings.Cut(strings.TrimRight(string(line), "\r\n"), ":"); ok && strings.EqualFold(name, viewName) {
				v := parseView(strings.TrimSpace(value))
				v.Answered = status
				s.Views = append(s.Views, v)
			}
		}
		s.Up = append(s.Up, up...)
		s.Down = append(s.Down, down...)
	}
	return s
}

// Reset forgets what passed.
func (t *Tap) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := range t.pipes {
		p.up.Reset()
		p.down.Reset()
		if p.closed {
			delete(t.pipes, p)
		}
	}
}
