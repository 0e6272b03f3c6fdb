package smuggle

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"strings"
	"time"
)

// Finding is what became of one Case.
type Finding struct {
	Case Case
	// Desync says how proxy and back end are out of step; empty: they are not.
	Desync string
	// Strict says what a strict proxy had done otherwise; empty: nothing.
	Strict string
	// Differs says where the proxy decided on something else than the back end
	// received: another host, another path.
	Differs string
	// Normal says the same of the path that the back end makes of what it received,
	// by decoding it, or leaving out dots and slashes.
	Normal string
	// Sent is what passed to the back end.
	Sent string
}

// Patience is how long an answer may take.
const Patience = 400 * time.Millisecond

// Range is one proxy in front of one back end.
type Range struct {
	// Proxy is the address of its listener.
	Proxy string
	Tap   *Tap
	// Stamp is the secret that the proxy writes in X-Stamp.
	Stamp string

	marks int
}

func (r *Range) mark() string {
	r.marks++
	return fmt.Sprintf("m%0*d", MarkSize-1, r.marks)
}

// Try sends one Case and judges.
func (r *Range) Try(c Case) Finding {
	f := Finding{Case: c}
	r.Tap.Reset()
	id := r.mark()
	got, err := r.send(strings.ReplaceAll(c.Raw, "{id}", id), id)
	if err != nil {
		f.Desync = err.Error()
		return f
	}
	passed := r.settle()
	f.Sent = cut(passed.Up)
	f.Desync = outOfStep(got, passed, r.Stamp, id)
	f.Differs, f.Normal = decidedOnOther(passed.Views, r.Stamp, asReceived), decidedOnOther(passed.Views, r.Stamp, asUsed)
	f.Strict = unlike(c, got, passed)
	if err := r.probe(); err != nil && f.Desync == "" {
		f.Desync = "the next request on another connection: " + err.Error()
	}
	if s := outOfStep(got, r.settle(), r.Stamp, id); s != "" && f.Desync == "" {
		f.Desync = "afterwards, " + s
	}
	return f
}

// answers are what came back on the client's connection.
type answers struct {
	status []int
	views  []View
	// closed by the proxy; probed: a marked request was sent behind the Case, and
	// its answer came.
	// refused: of HTTP/2, its stream is over, which is all that has to close.
	closed, probed, answered, refused bool
	garbage                           string
}

// send writes raw, reads answers until the proxy is silent or closes, and then
// asks a marked question on the same connection.
func (r *Range) send(raw, id string) (answers, error) {
	var a answers
	c, err := net.DialTimeout("tcp", r.Proxy, 5*time.Second)
	if err != nil {
		return a, fmt.Errorf("the proxy takes no connection: %w", err)
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return a, err
	}
	if _, err := io.WriteString(c, raw); err != nil {
		a.closed = true // it need not read to the end
	}
	in := bufio.NewReaderSize(c, 64<<10)
	method := strings.TrimLeft(raw[:min(len(raw), 40)], "\r\n")
	head := strings.HasPrefix(method, "HEAD ")
	for len(a.status) < 40 && a.read(c, in, head) {
		head = false
	}
	if a.closed || a.garbage != "" || len(a.status) == 0 {
		return a, nil
	}
	a.probed = true
	probe := "/p/" + id
	if _, err := io.WriteString(c, "GET "+probe+" HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
		a.closed = true
		return a, nil
	}
	for n := len(a.views); a.read(c, in, false) && len(a.views) > n && !a.answered; n++ {
		a.answered = a.isProbe(probe, id)
	}
	return a, nil
}

// isProbe: the last answer is that to the marked request. One of the Case's own
// that was late is none; one of somebody else's is wrong.
func (a *answers) isProbe(probe, id string) bool {
	target := a.views[len(a.views)-1].Target
	if m := marks.FindString(target); m != "" && m != id {
		a.garbage = "the marked request was answered with the answer to " + target
	}
	return strings.Contains(target, probe)
}

// read takes one answer; false when none came.
func (a *answers) read(c net.Conn, in *bufio.Reader, head bool) bool {
	if err := c.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		a.closed = true
		return false
	}
	if _, err := in.Peek(1); err != nil {
		a.closed = a.closed || !errors.Is(err, os.ErrDeadlineExceeded)
		return false
	}
	method := http.MethodGet
	if head {
		method = http.MethodHead
	}
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			rest, _ := in.Peek(min(in.Buffered(), 80))
			a.garbage = fmt.Sprintf("no answer of HTTP/1.1: %v %q", err, rest)
			return false
		}
		if resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		a.status = append(a.status, resp.StatusCode)
		if v := resp.Header.Get(textproto.CanonicalMIMEHeaderKey(viewName)); v != "" {
			a.views = append(a.views, parseView(v))
		}
		if err != nil || resp.Close {
			a.closed = true
			return false
		}
		return resp.StatusCode != http.StatusSwitchingProtocols
	}
}

// settle waits until every forwarded request is answered, or a while.
func (r *Range) settle() Passed {
	deadline := time.Now().Add(Patience)
	for {
		p := r.Tap.Passed(r.Stamp)
		if p.Answers >= p.Forwarded || time.Now().After(deadline) {
			return p
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// probe asks a marked question on a new connection.
func (r *Range) probe() error {
	mark := r.mark()
	c, err := net.DialTimeout("tcp", r.Proxy, 5*time.Second)
	if err != nil {
		return fmt.Errorf("the proxy takes no connection: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "GET /p/"+mark+" HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer resp.Body.Close()
	v := parseView(resp.Header.Get(viewName))
	if !strings.Contains(v.Target, "/p/"+mark) {
		return fmt.Errorf("status %d, the answer to %q", resp.StatusCode, v.Target)
	}
	return nil
}

func cut(b []byte) string {
	if b = bytes.TrimSpace(b); len(b) > 600 {
		b = b[:600]
	}
	return string(b)
}
