package smuggle

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

const testStamp = "the-stamp"

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	add := func(name string) {
		if seen[name] {
			t.Errorf("two cases are called %s", name)
		}
		seen[name] = true
	}
	for _, c := range Corpus() {
		add(c.Name)
	}
	for _, c := range Corpus2() {
		add(c.Name)
	}
	for _, a := range Answers() {
		add("answer/" + a.Name)
	}
	if len(seen) < 1000 {
		t.Errorf("only %d cases", len(seen))
	}
}

// TestLengthsHoldOnceMarked: a Content-Length that was computed is that of the
// body that is sent.
func TestLengthsHoldOnceMarked(t *testing.T) {
	r := &Range{}
	for _, c := range Corpus() {
		if c.Name != "cl-hides/right" && c.Name != "cl.te/plain" {
			continue
		}
		raw := strings.ReplaceAll(c.Raw, "{id}", r.mark())
		head, body, _ := strings.Cut(raw, "\r\n\r\n")
		if want := fmt.Sprintf("Content-Length: %d", len(body)); !strings.Contains(head, want) {
			t.Errorf("%s: no %s in %q", c.Name, want, head)
		}
	}
}

// careless is a proxy that believes Content-Length and passes everything on as
// it came, on one connection to the back end: what the corpus is there to find.
func careless(t *testing.T, backend string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up, err := net.Dial("tcp", backend)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); up.Close() })
	go func() {
		answers := bufio.NewReader(up)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for in := bufio.NewReader(c); carelessOne(in, up, answers, c) == nil; {
				continue
			}
			c.Close()
		}
	}()
	return l.Addr().String()
}

func carelessOne(in *bufio.Reader, up io.Writer, answers *bufio.Reader, c io.Writer) error {
	head, length, err := readHead(in)
	if err != nil {
		return err
	}
	first, rest, _ := strings.Cut(head, "\r\n")
	if _, err := io.WriteString(up, first+"\r\nX-Stamp: "+testStamp+"\r\nX-Route: a\r\n"+rest); err != nil {
		return err
	}
	if _, err := io.CopyN(up, in, int64(length)); err != nil {
		return err
	}
	head, length, err = readHead(answers)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(c, head); err != nil {
		return err
	}
	_, err = io.CopyN(c, answers, int64(length))
	return err
}

func readHead(in *bufio.Reader) (head string, length int, err error) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", 0, err
		}
		head += line
		if v, ok := strings.CutPrefix(line, "Content-Length:"); ok {
			_, _ = fmt.Sscan(v, &length) // what is no number is 0
		}
		if line == "\r\n" {
			return head, length, nil
		}
	}
}

// TestFindsWhatItIsFor: the careless proxy is found out, and a plain request
// through it is not.
func TestFindsWhatItIsFor(t *testing.T) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	backend := probe.Addr().String()
	probe.Close()
	if err := serveGo(t.Context(), backend); err != nil {
		t.Fatal(err)
	}
	tap, err := NewTap("127.0.0.1:0", backend)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	try := func(name string) Finding {
		for _, c := range Corpus() {
			if c.Name == name {
				r := &Range{Proxy: careless(t, tap.listener.Addr().String()), Tap: tap, Stamp: testStamp}
				return r.Try(c)
			}
		}
		t.Fatalf("no case %s", name)
		return Finding{}
	}
	if f := try("request-line/plain"); f.Desync != "" || f.Strict != "" {
		t.Errorf("a plain request: desync %q, strict %q", f.Desync, f.Strict)
	}
	if f := try("cl.te/plain"); !strings.Contains(f.Desync, "which the proxy did not forward") {
		t.Errorf("CL.TE: desync %q, want a request that the proxy did not forward", f.Desync)
	}
	if f := try("host-line/twice-differs"); f.Strict == "" {
		t.Error("two Hosts that went through are nothing to be said")
	}
}

func TestDecidedOnOther(t *testing.T) {
	for _, c := range []struct {
		view     View
		received bool
		used     bool
	}{
		{View{Stamp: testStamp, Route: "admin", Host: "a.test", Target: "/admin/x", Norm: "/admin/x"}, true, true},
		{View{Stamp: testStamp, Route: "a", Host: "A.test:80", Target: "/%61dmin", Norm: "/admin"}, true, false},
		{View{Stamp: testStamp, Route: "a", Host: "b.test", Target: "/", Norm: "/"}, false, false},
		{View{Stamp: testStamp, Route: "a", Host: "a.test", Target: "http://a.test/admin", Norm: "/admin"}, false, false},
		{View{Stamp: testStamp, Route: "a", Host: "a.test", Target: "/x?/../admin", Norm: "/x"}, true, true},
	} {
		if got := decidedOnOther([]View{c.view}, testStamp, asReceived) == ""; got != c.received {
			t.Errorf("%+v as received: %t", c.view, got)
		}
		if got := decidedOnOther([]View{c.view}, testStamp, asUsed) == ""; got != c.used {
			t.Errorf("%+v as used: %t", c.view, got)
		}
	}
}
