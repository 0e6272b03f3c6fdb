package authz

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/policy"
)

// service is the judge: a real server of Envoy's protocol.
type service struct {
	address string
	asked   chan map[string]any // each CheckRequest
}

// judgeService builds and starts the judge.
func judgeService(t *testing.T) *service {
	t.Helper()
	path, err := filepath.Abs("../../bin/judges/extauthz") // where it stays: to build it takes seconds
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", path, "./extauthz")
	build.Dir = "../../tools/judges"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(path, "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		t.Fatal("the judge says nothing")
	}
	s := &service{address: lines.Text(), asked: make(chan map[string]any, 100)}
	go func() {
		for lines.Scan() {
			var m map[string]any
			if json.Unmarshal(lines.Bytes(), &m) == nil {
				s.asked <- m
			}
		}
	}()
	return s
}

// holder waits where it is called, and asks by net/http.
type holder struct {
	service string
	apart   int
	busy    bool
}

func (h *holder) Apart(_ any, work func()) bool {
	h.apart++
	if !h.busy {
		work()
	}
	return !h.busy
}

func (h *holder) Ask(e *policy.External, question []byte) ([]byte, error) {
	if h.service == "" {
		return nil, errors.New("there is no such service")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(e.Timeout)*time.Millisecond)
	defer cancel()
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &p, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, h.service)
	}}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, "POST", "http://"+e.Cluster+"/envoy.service.auth.v3.Authorization/Check", bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if code := answer.Trailer.Get("Grpc-Status") + answer.Header.Get("Grpc-Status"); code != "0" {
		return nil, fmt.Errorf("gRPC status %s", code)
	}
	return b, nil
}

// head makes a head of "METHOD path" and "name: value" lines.
func head(line string, fields ...string) *message.Head {
	h := &message.Head{Length: -1, Minor: 1}
	method, path, _ := strings.Cut(line, " ")
	h.Method, h.Path, h.Authority = []byte(method), []byte(path), []byte("shop.example:8080")
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.Add([]byte(name), []byte(value))
	}
	return h
}

// lines are the fields of a head as text.
func lines(h *message.Head) (out []string) {
	for _, f := range h.Fields {
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	return out
}

func aCase(h *message.Head, holder Holder) *Case {
	return &Case{About: About{Head: h, Host: []byte("shop.example"), Protocol: "HTTP/1.1", ID: []byte("r1"), Now: now, Nanos: 5,
		Source:      Party{Address: netip.MustParseAddrPort("10.0.0.1:4711"), Name: "shop/web", Principal: "spiffe://acme/ns/shop/sa/web", Labels: map[string]string{"app": "web"}},
		Destination: Party{Address: netip.MustParseAddrPort("[fd00::2]:8080"), Name: "shop/cart", Principal: "spiffe://acme/ns/shop/sa/cart"},
		Memory:      &Memory{}, Holder: holder}}
}

// external is a Set that allows what the service agrees to.
func external(e *policy.External) *policy.Set {
	return &policy.Set{Rules: []policy.Rule{{ID: "policy/shop/cart/ingress/ask", Tier: policy.Project, Action: policy.Allow,
		Requests: []policy.RequestMatch{{External: e}}}}, Isolated: "isolated/shop/cart/ingress"}
}

var packet = policy.Packet{Peer: 7, PeerAddr: netip.MustParseAddr("10.0.0.1"), Protocol: policy.TCP, Port: 8080}

// TestExternal: questions and answers, with a server that Envoy's users have.
func TestExternal(t *testing.T) {
	if testing.Short() {
		t.Skip("the judge is built for seconds")
	}
	judge := judgeService(t)
	t.Run("question", func(t *testing.T) { testQuestion(t, judge) })
	t.Run("answers", func(t *testing.T) { testAnswers(t, judge) })
}

func testAnswers(t *testing.T, judge *service) {
	e := &policy.External{Cluster: "authz", Timeout: 2000, Status: 503}
	for want, c := range map[string]struct {
		allow  bool
		status int
		body   string
		fields []string // of the request, or of the denial
		answer []string // of the endpoint's answer
	}{
		"allow": {allow: true, fields: []string{"x-want: allow", "authorization: Basic eA==", "x-user: root", "x-user: toor", "x-there: yes", "x-secret: 1"}},
		"change": {allow: true, fields: []string{"x-want: change", "x-there: yes", "x-user: anna", "x-group: a", "x-group: b"},
			answer: []string{"server: x", "set-cookie: a=1", "set-cookie: b=2"}},
		"deny":     {status: 403},
		"redirect": {status: 302, fields: []string{"location: https://login.example/", "set-cookie: s=1"}},
		"body":     {status: 429, body: "too often\n", fields: []string{"content-type: text/plain"}},
		"path":     {status: 503},
		"host":     {status: 503},
		"framing":  {status: 503},
		"internal": {status: 503},
		"line":     {status: 503},
		"query":    {status: 503},
		"failed":   {status: 503},
		"both":     {status: 503},
		"error":    {status: 503},
		"large":    {status: 503},
		"slow":     {status: 503},
	} {
		h := head("GET /cart?a=1", "x-want: "+want, "authorization: Basic eA==", "x-user: root", "x-user: toor", "x-there: yes", "x-secret: 1")
		k := aCase(h, &holder{service: judge.address})
		s := external(e).Decider().Session(packet)
		v := k.Decide(s)
		if v.Allow != c.allow {
			t.Errorf("%s: %+v", want, v)
			continue
		}
		if err := k.asked[0].err; (err != nil) != (c.status == 503) {
			t.Errorf("%s: failed: %v", want, err)
		}
		if v.Allow {
			answer := &message.Head{Status: 200}
			answer.Add([]byte("server"), []byte("x"))
			k.Change(s, v)
			again := external(e).Decider().Session(packet) // another try, to another endpoint
			k.Change(again, k.Decide(again))
			k.ChangeAnswer(answer, s, v)
			if got := lines(h); !slices.Equal(got, c.fields) {
				t.Errorf("%s: the request is\n%q, want\n%q", want, got, c.fields)
			}
			if got := lines(answer); c.answer != nil && !slices.Equal(got, c.answer) {
				t.Errorf("%s: the answer is %q", want, got)
			}
			continue
		}
		answer := &message.Head{}
		d := k.Denial(s, v, answer)
		if d.Status != c.status || string(d.Body) != c.body || !slices.Equal(lines(answer), c.fields) {
			t.Errorf("%s: %d %q %q", want, d.Status, d.Body, lines(answer))
		}
	}
	for asked := range 16 { // the service says that it was asked by a pipe
		select {
		case <-judge.asked:
		case <-time.After(5 * time.Second):
			t.Fatalf("the service was asked %d times", asked)
		}
	}
}

// testQuestion: what the service reads is what the endpoint would get.
func testQuestion(t *testing.T, judge *service) {
	h := head("POST /a%20b?c=d&e", "x-want: allow", "accept: a", "cookie: a=1", "accept: b", "cookie: b=2", "x-empty: ")
	h.Scheme, h.Framing, h.Length = []byte("https"), message.Sized, 42
	k := aCase(h, &holder{service: judge.address})
	if v := k.Decide(external(&policy.External{Cluster: "authz", Timeout: 5000}).Decider().Session(packet)); !v.Allow {
		t.Fatal(v, k.asked[0].err)
	}
	var want map[string]any
	text := `{"attributes":{
		"source":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":4711}},"service":"shop/web","labels":{"app":"web"},"principal":"spiffe://acme/ns/shop/sa/web"},
		"destination":{"address":{"socketAddress":{"address":"fd00::2","portValue":8080}},"service":"shop/cart","principal":"spiffe://acme/ns/shop/sa/cart"},
		"request":{"time":"2027-01-15T08:00:00.000000005Z","http":{"id":"r1","method":"POST","path":"/a%20b?c=d&e","host":"shop.example:8080","scheme":"https","size":"42","protocol":"HTTP/1.1",
		"headers":{":authority":"shop.example:8080",":method":"POST",":path":"/a%20b?c=d&e",":scheme":"https","x-want":"allow","accept":"a,b","cookie":"a=1; b=2","x-empty":""}}}}}`
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-judge.asked:
		if !reflect.DeepEqual(got, want) {
			t.Errorf("it was asked\n%v, want\n%v", got, want)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it was not asked")
	}
}

// TestExternalIsMissing: closed, unless the Policy says open.
func TestExternalIsMissing(t *testing.T) {
	for _, open := range []bool{false, true} {
		k := aCase(head("GET /"), &holder{})
		s := external(&policy.External{Cluster: "gone", Open: open}).Decider().Session(packet)
		if v := k.Decide(s); v.Allow != open {
			t.Errorf("open %v: %+v", open, v)
		}
	}
	k := aCase(head("GET /", "x-name: \xff\xfe"), &holder{service: "127.0.0.1:1"})
	s := external(&policy.External{Cluster: "authz"}).Decider().Session(packet)
	v := k.Decide(s)
	if err := k.asked[0].err; v.Allow || !errors.Is(err, errNotText) {
		t.Errorf("a request that cannot be asked about: %+v, %v", v, err)
	}
	if d := k.Denial(s, v, &message.Head{}); d.Status != 403 {
		t.Errorf("without a status: %+v", d)
	}
}

// FuzzAnswer: whatever a service sends, nothing panics, and no change that is
// taken can frame a message or change what was decided about.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 4, 0x0a, 0x02, 0x08, 0x07})
	f.Add(append([]byte{0, 0, 0, 0, 13, 0x1a, 11, 0x12, 9, 0x0a, 7}, "\x0a\x01a\x12\x02bc"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readAnswer(b)
		if err != nil {
			return
		}
		for _, c := range append(a.fields, a.onAnswer...) {
			if !mayChange(c.name) || strings.ContainsAny(c.name+c.value, "\r\n\x00") || c.name[0] == ':' {
				t.Errorf("%q: %q", c.name, c.value)
			}
		}
	})
}
