package http2

import (
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// exceptions are the cases of h2spec that we do not pass, with the reason.
var exceptions = map[string]string{}

// judge builds a program of h2spec's.
func judge(t *testing.T, dir, name string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	build := exec.Command("go", "build", "-o", path, "github.com/summerwind/h2spec/cmd/"+name)
	build.Dir = "../../tools/judges"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// TestH2spec lets h2spec judge a Conn in the role of a server.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("h2spec takes seconds")
	}
	dir := t.TempDir()
	tool := judge(t, dir, "h2spec")
	host, port, err := net.SplitHostPort(listen(t, &Config{}))
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(dir, "report.xml")
	// It exits 1 when a case failed; the report says which.
	out, _ := exec.Command(tool, "-h", host, "-p", port, "-o", "1", "-S", "-j", report).CombinedOutput()
	b, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var r struct {
		Suites []struct {
			Cases []struct {
				Package string    `xml:"package,attr"`
				Name    string    `xml:"classname,attr"`
				Failure *string   `xml:"failure"`
				Error   *string   `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(strings.ReplaceAll(string(b), "\x00", "")), &r); err != nil {
		t.Fatal(err)
	}
	cases := 0
	for _, s := range r.Suites {
		for _, c := range s.Cases {
			cases++
			if c.Failure == nil && c.Error == nil && c.Skipped == nil {
				continue
			}
			if name := c.Package + ": " + c.Name; exceptions[name] == "" {
				t.Errorf("%s", name)
			}
		}
	}
	// 145, and one that is strict beyond the RFC.
	if cases != 146 {
		t.Errorf("%d cases ran, not 146", cases)
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// asClient is set in the environment of the client that h2specd starts: this test
// binary, with the address to ask.
const asClient = "MOIRE_H2SPEC_CLIENT"

func TestMain(m *testing.M) {
	if os.Getenv(asClient) != "" {
		judged(os.Args[len(os.Args)-1])
		return
	}
	os.Exit(m.Run())
}

// judged asks a server once and reads what it says until it is silent.
func judged(address string) {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	nc, err := net.Dial("tcp", u.Host)
	if err != nil {
		panic(err)
	}
	defer nc.Close()
	var c Conn
	c.Init(&Config{Client: true}, nil, 0)
	s, _ := c.Open()
	h := request("GET")
	h.Authority = []byte(u.Host)
	c.WriteHead(s, h, true)
	buf := make([]byte, 20000)
	for {
		nc.Write(c.Out())
		c.Sent(len(c.Out()))
		nc.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := nc.Read(buf)
		if err != nil {
			return
		}
		for in := buf[:n]; ; {
			ev, n, err := c.Next(in, time.Now().UnixNano())
			if in = in[n:]; err != nil {
				nc.Write(c.Out())
				// A close with bytes of the judge unread would be a reset to it.
				nc.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, nc)
				return
			}
			if ev.Kind == NeedMore {
				break
			}
			if ev.Kind == Data {
				c.Consumed(ev.Stream, len(ev.Data))
			}
		}
	}
}

// TestH2specClient lets h2specd judge a Conn in the role of a client.
func TestH2specClient(t *testing.T) {
	if testing.Short() {
		t.Skip("h2specd takes seconds")
	}
	tool := judge(t, t.TempDir(), "h2specd")
	for try := range 5 {
		// It listens on a port for each case.
		from := strconv.Itoa(20000 + (os.Getpid()+try*1000)%10000)
		cmd := exec.Command(tool, "-f", from, "-o", "1", "-e", os.Args[0])
		cmd.Env = append(os.Environ(), asClient+"=1")
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "address already in use") {
			continue
		}
		if err != nil || !strings.Contains(string(out), "57 tests, 57 passed") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	t.Error("no free ports")
}

// TestNetHTTP has Go's own client ask a Conn for bodies of many sizes.
func TestNetHTTP(t *testing.T) {
	address := listen(t, &Config{})
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	client := &http.Transport{Protocols: p}
	defer client.CloseIdleConnections()
	for i := range 40 {
		body := strings.Repeat("abcdefgh", 1+i*3000)
		req, err := http.NewRequest("POST", "http://"+address+"/"+strings.Repeat("x", i*200), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.RoundTrip(req)
		if err != nil {
			t.Fatal(i, err)
		}
		got, err := io.ReadAll(res.Body)
		if err != nil || string(got) != body || res.Header.Get("x-path") != req.URL.Path {
			t.Fatalf("%d: %v, %d of %d bytes, path of %d", i, err, len(got), len(body), len(res.Header.Get("x-path")))
		}
	}
}
