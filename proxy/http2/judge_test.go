package http2

import (
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exceptions are the cases of h2spec that we do not pass, with the reason.
var exceptions = map[string]string{}

// TestH2spec lets h2spec judge a Conn in the role of a server.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("h2spec takes seconds")
	}
	dir := t.TempDir()
	tool := filepath.Join(dir, "h2spec")
	build := exec.Command("go", "build", "-o", tool, "github.com/summerwind/h2spec/cmd/h2spec")
	build.Dir = "../../tools/judges"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
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
