//go:build judge

package http1

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"moire.dev/moire/proxy/message"
)

// TestVectors runs the public vectors of llhttp: MOIRE_LLHTTP names the test
// folder of a copy of its sources. What llhttp calls invalid in its strict mode
// we refuse, and what it takes we take and understand in the same way, but for
// the differences written down here.
func TestVectors(t *testing.T) {
	folder := os.Getenv("MOIRE_LLHTTP")
	if folder == "" {
		t.Skip("MOIRE_LLHTTP is not set; it names the test folder of llhttp's sources")
	}
	files, err := filepath.Glob(filepath.Join(folder, "re*", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in %s: %v", folder, err)
	}
	ran, used := 0, map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(folder, file)
		for _, v := range vectors(rel, string(text)) {
			ran++
			difference := v.judge()
			reason, known := differences[v.name]
			used[v.name] = true
			if difference != "" && !known {
				t.Errorf("%s: %s\n%q\n%s", v.name, difference, v.input, v.log)
			}
			if difference == "" && known {
				t.Errorf("%s: no difference any more; it was: %s", v.name, reason)
			}
		}
	}
	for name := range differences {
		if !used[name] {
			t.Errorf("no vector is called %s", name)
		}
	}
	if ran < 150 {
		t.Errorf("%d vectors, there are more", ran)
	}
	t.Logf("%d vectors, %d written differences", ran, len(differences))
}

type vector struct {
	name, kind, input, log string
}

var (
	vectorHeading = regexp.MustCompile(`^#+ (.*)`)
	vectorType    = regexp.MustCompile(`<!-- meta=.*"type": *"([^"]+)"`)
	bodySkipped   = "\"skipBody\": true"
	hexEscape     = regexp.MustCompile(`\\x([0-9a-fA-F]+)`)
	octalEscape   = regexp.MustCompile(`\\([0-7]{1,3})`)
	repeatCode    = regexp.MustCompile(`\$\{'(.)'\.repeat\((\d+)\)\}`)
)

// vectors of one file that are meant for the strict mode.
func vectors(file, text string) (all []vector) {
	var v vector
	var block *string
	count := map[string]int{}
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case block != nil && line == "```":
			if block == &v.log && (v.kind == "request" || v.kind == "response") {
				count[v.name]++
				if n := count[v.name]; n > 1 {
					v.name += " #" + strconv.Itoa(n)
				}
				v.input = unescape(v.input)
				all = append(all, v)
			}
			block = nil
		case block != nil:
			*block += line + "\n"
		case line == "```http":
			v.input, block = "", &v.input
		case line == "```log":
			v.log, block = "", &v.log
		case vectorHeading.MatchString(line):
			v.name = file + ": " + vectorHeading.FindStringSubmatch(line)[1]
		case vectorType.MatchString(line):
			v.kind = vectorType.FindStringSubmatch(line)[1]
			if strings.Contains(line, bodySkipped) {
				v.kind = "" // an option of llhttp, not a message
			}
		}
	}
	return all
}

// unescape is the rule by which llhttp's own runner reads an input.
func unescape(s string) string {
	s = strings.TrimSuffix(s, "\n")
	s = strings.ReplaceAll(s, "\\\n", "")
	s = strings.ReplaceAll(s, "\n", "\r\n")
	s = strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\t`, "\t", `\f`, "\f").Replace(s)
	code := func(base int) func(string) string {
		return func(m string) string {
			n, _ := strconv.ParseUint(strings.TrimLeft(m, `\x`), base, 16)
			return string([]byte{byte(n)})
		}
	}
	s = hexEscape.ReplaceAllStringFunc(s, code(16))
	s = octalEscape.ReplaceAllStringFunc(s, code(8))
	return repeatCode.ReplaceAllStringFunc(s, func(m string) string {
		p := repeatCode.FindStringSubmatch(m)
		n, _ := strconv.Atoi(p[2])
		return strings.Repeat(p[1], n)
	})
}

// judge compares what llhttp's log says with what we say; empty: the same.
func (v vector) judge() string {
	want := readLog(v.log)
	input := v.input
	if want.err && HeadEnd([]byte(input), 0) < 0 {
		// llhttp stops in the midst of a head, of which we want to see the end.
		input += "\r\n\r\n"
	}
	got := readStream(input, v.kind == "response")
	if want.err != got.err {
		return fmt.Sprintf("llhttp's error %q, ours %q", want.reason, got.reason)
	}
	if want.err {
		return ""
	}
	if want.said != got.said {
		return fmt.Sprintf("llhttp understands %s\nand we            %s", want.said, got.said)
	}
	return ""
}

type outcome struct {
	err    bool
	reason string
	said   string
}

var logSpan = regexp.MustCompile(`span\[(\w+)\]=(?:"(.*)"|(lf|cr))$`)

// readLog makes of a log: start lines and bodies.
func readLog(log string) (o outcome) {
	var said, body strings.Builder
	flush := func() {
		if body.Len() > 0 {
			fmt.Fprintf(&said, "[%s] ", body.String())
			body.Reset()
		}
	}
	for line := range strings.SplitSeq(log, "\n") {
		if strings.Contains(line, "error code=") && !strings.Contains(line, "error code=22") && !strings.Contains(line, "error code=21") {
			o.err, o.reason = true, line[strings.Index(line, "reason="):]
		}
		if strings.Contains(line, "message complete") {
			flush()
		}
		if _, s, ok := strings.Cut(line, "status="); ok && strings.Contains(line, "headers complete") {
			code, _, _ := strings.Cut(s, " ")
			if code != "0" {
				fmt.Fprintf(&said, "%s ", code)
			}
		}
		m := logSpan.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		text := strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\t`, "\t", `\f`, "\f").Replace(m[2])
		switch m[1] {
		case "method", "url":
			said.WriteString(text + " ")
		case "body":
			body.WriteString(text + map[string]string{"lf": "\n", "cr": "\r"}[m[3]])
		}
	}
	flush()
	o.said = said.String()
	return o
}

// readStream reads input as one connection, as a proxy would.
func readStream(input string, answers bool) (o outcome) {
	var said strings.Builder
	var h message.Head
	b := []byte(input)
	fail := func(err error) outcome { return outcome{err: true, reason: err.Error()} }
	for len(b) > 0 {
		n := HeadEnd(b, 0)
		if n < 0 {
			break
		}
		head := b[:n:n]
		target := strings.Split(string(head), " ")
		if err := parseAs(head, &h, answers); err != nil {
			return fail(err)
		}
		b = b[n:]
		if answers {
			fmt.Fprintf(&said, "%d ", h.Status)
		} else {
			fmt.Fprintf(&said, "%s %s ", h.Method, target[1])
		}
		body, rest, err := readBody(b, &h)
		if err != nil {
			return fail(err)
		}
		if len(body) > 0 {
			fmt.Fprintf(&said, "[%s] ", body)
		}
		b = rest
		if h.Upgrade != nil || h.IsMethod("CONNECT") {
			break
		}
		if h.Close && len(b) > 0 {
			return outcome{err: true, reason: "bytes after the end of a connection"}
		}
	}
	o.said = said.String()
	return o
}

// parseAs parses a head, with a Host that most vectors leave out.
func parseAs(head []byte, h *message.Head, answers bool) error {
	if answers {
		return ParseResponse(head, h, &typicalLimits, []byte("GET"))
	}
	whole := bytes.Clone(head)
	err := ParseRequest(head, h, &typicalLimits)
	if err != ErrHostMissing {
		return err
	}
	line := bytes.IndexByte(whole[2:], '\n') + 3
	with := append(append(bytes.Clone(whole[:line]), "Host: host\r\n"...), whole[line:]...)
	err = ParseRequest(with, h, &typicalLimits)
	if err == ErrHostDiffers || err == nil && len(h.Scheme) > 0 {
		return nil
	}
	return err
}

func readBody(b []byte, h *message.Head) (body, rest []byte, err error) {
	switch h.Framing {
	case message.Sized:
		n := min(h.Length, int64(len(b)))
		return b[:n], b[n:], nil
	case message.UntilClose:
		return b, nil, nil
	case message.Chunked:
		var d Chunked
		d.Reset(nil, &typicalLimits)
		for {
			data, n, err := d.Next(b)
			body = append(body, data...)
			b = b[n:]
			if err != nil || n == 0 {
				return body, b, err
			}
		}
	}
	return nil, b, nil
}

// Reasons for differences.
const (
	anyMethod   = "a proxy passes on every method that is a token"
	otherNames  = "not HTTP/1.x"
	oddHost     = "a host has only unreserved characters; this is no host to anybody"
	secondEmpty = "at most one empty line is skipped before a request (RFC 9112 2.2 asks for one)"
	answerEmpty = "no empty line is skipped before an answer: bytes that belong to no answer end the connection"
	codings     = "transfer codings other than chunked are refused (501), and a fragment is"
	interim     = "an interim answer with a body breaks RFC 9112 6.1"
	wrongCoding = "chunked is not the last coding: llhttp reads until the end, we refuse"
)

// differences from llhttp, each with its reason.
var differences = map[string]string{
	"request/connection.md: CRLF between requests, implicit `keep-alive`":                                 secondEmpty,
	"request/invalid.md: HTTP protocol and ANNOUNCE method":                                               anyMethod,
	"request/invalid.md: Invalid method":                                                                  anyMethod,
	"request/method.md: CONNECT with body":                                                                "a length in front of a tunnel has two readings",
	"request/method.md: M-SEARCH request":                                                                 "the target * is for OPTIONS only",
	"request/method.md: SOURCE request with ICE":                                                          otherNames,
	"request/method.md: OPTIONS request with RTSP":                                                        otherNames,
	"request/method.md: ANNOUNCE request with RTSP":                                                       otherNames,
	"request/sample.md: curl GET":                                                                         oddHost,
	"request/sample.md: Firefox GET":                                                                      oddHost,
	"request/sample.md: No HTTP version":                                                                  "HTTP/0.9",
	"request/transfer-encoding.md: POST with `chunked` as last transfer-encoding":                         codings,
	"request/transfer-encoding.md: POST with `chunked` as last transfer-encoding (multiple headers)":      codings,
	"request/uri.md: Fragment in URI":                                                                     "a fragment is never sent (RFC 9112 3.2)",
	"request/uri.md: `host:port` and basic auth":                                                          "user information in an authority is refused (RFC 9110 4.2.4)",
	"response/connection.md: HTTP 101 response with Upgrade and Content-Length header":                    interim,
	"response/connection.md: HTTP 101 response with Upgrade and Transfer-Encoding header":                 interim,
	"response/connection.md: HTTP 304 with Content-Length":                                                answerEmpty,
	"response/connection.md: HTTP 100 first, then 400":                                                    answerEmpty,
	"response/pipelining.md: Should parse multiple events":                                                answerEmpty,
	"response/sample.md: RTSP response":                                                                   otherNames,
	"response/sample.md: ICE response":                                                                    otherNames,
	"response/sample.md: HTTP version 0.9":                                                                otherNames,
	"response/sample.md: Response starting with CRLF":                                                     answerEmpty,
	"response/transfer-encoding.md: `chunked` before other transfer-encoding":                             wrongCoding,
	"response/transfer-encoding.md: multiple transfer-encoding where chunked is not the last one":         wrongCoding,
	"response/transfer-encoding.md: `chunkedchunked` transfer-encoding does not enable chunked enconding": wrongCoding,
}
