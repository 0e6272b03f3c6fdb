package smuggle

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// ServeAnswers is a back end that answers a request for /x/<name> with the
// Answer of this name, and every other with what it asked for. It serves until
// the listener is closed.
func ServeAnswers(l net.Listener) {
	table := map[string]Answer{}
	for _, a := range Answers() {
		table[a.Name] = a
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serveAnswers(c, table)
	}
}

func serveAnswers(c net.Conn, table map[string]Answer) {
	defer c.Close()
	in := bufio.NewReader(c)
	for range 10000 {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		a, bad := table[strings.TrimPrefix(r.URL.Path, "/x/")]
		if !bad {
			a.Raw = fmt.Sprintf(okHead+"Content-Length: %d\r\n\r\n%s", len(r.URL.Path), r.URL.Path)
		}
		if _, err := io.WriteString(c, a.Raw); err != nil || a.Close {
			return
		}
	}
}

// TryAnswer asks the proxy for one Answer, and says what is wrong: an ambiguous
// answer looked whole, a right one did not arrive, or a later request on this or
// another connection was answered with something else.
func TryAnswer(proxy string, a Answer) string {
	c, err := net.DialTimeout("tcp", proxy, 5*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	in := bufio.NewReader(c)
	method := a.Method
	if method == "" {
		method = http.MethodGet
	}
	status, body, err := askOnce(c, in, method, "/x/"+a.Name, 3*time.Second)
	switch {
	case a.Want == Reject && err == nil && status < 400:
		return fmt.Sprintf("looked whole: status %d, %.80q", status, body)
	case a.Want == Forward && (err != nil || status >= 400 && status != 599 || body != a.Body):
		return fmt.Sprintf("did not arrive: status %d, %.80q, %v", status, body, err)
	case strings.Contains(body, "poison"):
		return fmt.Sprintf("brought what stood behind it: %.80q", body)
	}
	if err == nil {
		if wrong := follow(c, in, "/same/"+a.Name); wrong != "" {
			return "on the same connection, " + wrong
		}
	}
	for i := range 2 {
		next, err := net.DialTimeout("tcp", proxy, 5*time.Second)
		if err != nil {
			return err.Error()
		}
		defer next.Close()
		if wrong := follow(next, bufio.NewReader(next), fmt.Sprintf("/next%d/%s", i, a.Name)); wrong != "" {
			return "on another connection, " + wrong
		}
	}
	return ""
}

// follow asks for a path and wants it back. A connection that the proxy closed
// is no wrong answer.
func follow(c net.Conn, in *bufio.Reader, path string) string {
	status, body, err := askOnce(c, in, http.MethodGet, path, 3*time.Second)
	if err != nil {
		if strings.HasPrefix(path, "/same/") {
			return ""
		}
		return err.Error()
	}
	if status != http.StatusOK || body != path {
		return fmt.Sprintf("%s was answered with status %d, %.80q", path, status, body)
	}
	return ""
}

func askOnce(c net.Conn, in *bufio.Reader, method, path string, within time.Duration) (status int, body string, err error) {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return 0, "", err
	}
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: a.test\r\n\r\n", method, path); err != nil {
		return 0, "", err
	}
	for range 100_000 {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return 0, "", err
		}
		if resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	return 0, "", fmt.Errorf("nothing but provisional answers")
}
