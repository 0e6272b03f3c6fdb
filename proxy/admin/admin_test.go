package admin

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/l7"
)

var update = flag.Bool("update", false, "write golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a proxy and its telemetry.
type fake struct {
	cfg     *l7.Config
	state   State
	unready error
	records []record.Record
	more    chan []record.Record
}

func (f *fake) Config() *l7.Config { return f.cfg }
func (f *fake) State() State       { return f.state }
func (f *fake) Ready() error       { return f.unready }

func (f *fake) WriteMetrics(w io.Writer) error {
	_, err := io.WriteString(w, "moire_proxy_x_total 1\n")
	return err
}

func (f *fake) Stats() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		_ = yield("route.shop/a\x1b[2J.requests", 12) && yield("cluster.b.p99_ms", 0.25)
	}
}

func (f *fake) Last(n int) []record.Record { return f.records[max(0, len(f.records)-n):] }

func (f *fake) Follow(ctx context.Context, n int, do func([]record.Record, uint64) error) error {
	if err := do(f.Last(n), 0); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case rs := <-f.more:
			if err := do(rs, 3); err != nil {
				return err
			}
		}
	}
}

func someFake() *fake {
	status := 14
	at := time.Date(2026, 11, 27, 10, 0, 0, 123e6, time.UTC)
	return &fake{
		cfg: &l7.Config{Name: "edge", Listeners: []l7.Listener{{Name: "web", Address: "0.0.0.0:80"}},
			Routes: []l7.Route{{Name: "shop/a", Hostnames: []string{"shop.example"}, Rules: []l7.Rule{{Name: "cart",
				Matches:  []l7.Match{{Method: "GET", Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/cart"}}, {GRPC: &l7.GRPCMatch{Service: "s.C"}}},
				Backends: []l7.Backend{{Cluster: "shop/cart"}, {Cluster: "shop/pay"}}}, {}}}},
			Mesh: &l7.Mesh{Workloads: []l7.Workload{{VNI: 7, Name: "shop/web", Mode: "strict", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
				SPIFFE: "spiffe://shop/ns/shop/sa/web", Certificate: "old", View: "7/shop"}, {VNI: 8, Name: "shop/db"}}}},
		state: State{
			Listeners: []Listener{{Name: "web", Address: "0.0.0.0:80", Protocol: "http", Connections: 3}, {Name: "tls", Address: "[::]:443", Protocol: "http2", TLS: true, Draining: true}},
			Clusters: []Cluster{
				{Name: "shop/cart", Balancer: "PeakEWMA", Active: 4, Connections: 2, Pending: 1, Endpoints: []Endpoint{
					{Address: "10.0.0.1:80", Zone: "a", Weight: 1, Healthy: true, Active: 4, EWMA: 1234567},
					{Address: "10.0.0.2:80", Weight: 3, Priority: 1, Ejected: 29*time.Second + 600*time.Millisecond, Ejections: 2},
				}},
				{Name: "shop/pay", Balancer: "Random", Panic: true},
			},
			Certificates: []Certificate{{Name: "shop", Names: []string{"shop.example", "spiffe://shop/x"}, NotBefore: at, NotAfter: at.AddDate(200, 0, 0), Serial: "1f"}, {Name: "old", NotAfter: at.AddDate(-10, 0, 0)}},
		},
		records: []record.Record{
			{ID: "1", Time: at, Latency: 1500 * time.Microsecond, Route: "shop/a", Source: record.End{Address: netip.MustParseAddr("10.1.0.1"), Port: 999},
				Request: &record.Request{Protocol: "HTTP/2", Method: "POST", Host: "h", Path: "/s/M\x1b[2J", Status: 200, GRPCStatus: &status, Flags: []string{"UF", "URX"}, Cluster: "shop/cart"}},
			{ID: "2", Time: at, Protocol: "tcp"},
		},
		more: make(chan []record.Record),
	}
}

func get(t *testing.T, s *Server, method, target string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Code, w.Body.String()
}

// Everything that can be seen, as it is seen.
func TestGolden(t *testing.T) {
	f := someFake()
	s := New(Options{Proxy: f, Telemetry: f, Level: &slog.LevelVar{}, Drain: func() {}, Version: "v1"})
	var b strings.Builder
	for _, path := range []string{
		"/", "/ready", "/config", "/listeners", "/listeners?format=json", "/routes", "/workloads", "/clusters", "/clusters?format=json", "/certs?format=json",
		"/stats", "/stats?format=json", "/metrics", "/records", "/records?last=1", "/records?route=shop/a&status=2xx&format=text", "/records?status=404", "/records?format=text", "/log",
	} {
		status, body := get(t, s, "GET", path)
		fmt.Fprintf(&b, "## GET %s: %d\n%s", path, status, body)
	}
	const path = "testdata/doors.txt"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("-want +got; write it anew with -update\n%s", d)
	}
	if _, body := get(t, s, "GET", "/certs"); !strings.Contains(body, "shop.example,spiffe://shop/x") || !strings.Contains(body, "EXPIRED") {
		t.Error(body)
	}
	if _, body := get(t, s, "GET", "/build"); !strings.Contains(body, "version") || !strings.Contains(body, "v1") {
		t.Error(body)
	}
	if _, body := get(t, s, "GET", "/build?format=json"); !json.Valid([]byte(body)) {
		t.Error(body)
	}
}

func TestBadInput(t *testing.T) {
	f := someFake()
	drained := 0
	var level slog.LevelVar
	s := New(Options{Proxy: f, Telemetry: f, Level: &level, Drain: func() { drained++ }})
	for _, c := range []struct {
		method, target string
		status         int
		says           string
	}{
		{"GET", "/nothing", 404, `there is no "/nothing" here; GET / lists what there is`},
		{"GET", "/debug/pprof/", 404, "there is no"},
		{"GET", "/..%2f..%2fetc/passwd", 404, "there is no"},
		{"GET", "/drain", 405, "/drain is for POST"},
		{"PUT", "/log?level=debug", 405, "/log is for GET and POST"},
		{"POST", "/config", 405, "/config is for GET"},
		{"DELETE", "/", 405, "/ is for GET"},
		{"GET", "/clusters?format=xml", 400, `format="xml" is unknown; write text or json`},
		{"GET", "/records?last=-1", 400, `last="-1" is not a number of records; write 0 to 100000`},
		{"GET", "/records?last=many", 400, "is not a number"},
		{"GET", "/records?last=100001", 400, "is not a number"},
		{"GET", "/records?follow=perhaps", 400, `follow="perhaps"; write true or false`},
		{"GET", "/records?paths=/", 400, `"paths" is unknown; filters are direction`},
		{"GET", "/records?format=%0a", 400, `format="\n" is unknown`},
		{"POST", "/log", 400, `level="" is unknown; write debug, info, warn or error`},
		{"POST", "/log?level=INFO-4", 400, "is unknown"},
	} {
		status, body := get(t, s, c.method, c.target)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s %s: %d %s", c.method, c.target, status, body)
		}
	}
	if drained != 0 || level.Level() != slog.LevelInfo {
		t.Error("something was changed")
	}
}

func TestChanges(t *testing.T) {
	f := someFake()
	drained := 0
	var level slog.LevelVar
	s := New(Options{Proxy: f, Telemetry: f, Level: &level, Drain: func() { drained++ }})
	if status, body := get(t, s, "POST", "/log?level=Debug"); status != 200 || body != "debug\n" || level.Level() != slog.LevelDebug {
		t.Error(status, body)
	}
	if status, _ := get(t, s, "POST", "/drain"); status != 202 || drained != 1 {
		t.Error(status, drained)
	}
	f.unready, f.cfg = errors.New("listener web is not open"), nil
	if status, body := get(t, s, "GET", "/ready"); status != 503 || body != "not ready: listener web is not open\n" {
		t.Error(status, body)
	}
	if status, _ := get(t, s, "GET", "/config"); status != 503 {
		t.Error(status)
	}
	bare := New(Options{Proxy: f, Telemetry: f})
	for _, c := range [][2]string{{"POST", "/drain"}, {"POST", "/log?level=debug"}, {"GET", "/log"}} {
		if status, _ := get(t, bare, c[0], c[1]); status != 501 {
			t.Error(c, status)
		}
	}
	if status, _ := get(t, New(Options{Proxy: f, Telemetry: f, Profile: true}), "GET", "/debug/pprof/"); status != 200 {
		t.Error("no profiles:", status)
	}
}

func keyPEM(t *testing.T) (text string, body string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return text, strings.Split(text, "\n")[1]
}

// fill puts text into every string there is.
func fill(v reflect.Value, text string, depth int) {
	if depth > 12 || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text, depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text, depth+1)
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.ValueOf("k").Convert(v.Type().Key()), reflect.ValueOf(text).Convert(v.Type().Elem()))
		v.Set(m)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), text, depth+1)
		}
	}
}

// A key is never shown, whatever field of the configuration it is in.
func TestKeysAreNeverShown(t *testing.T) {
	text, body := keyPEM(t)
	for name, in := range map[string]string{"alone": text, "after a certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + text + "tail", "cut": text[:len(text)-20], "twice": text + text} {
		var cfg l7.Config
		fill(reflect.ValueOf(&cfg).Elem(), in, 0)
		f := someFake()
		f.cfg = &cfg
		status, got := get(t, New(Options{Proxy: f, Telemetry: f}), "GET", "/config")
		if status != 200 || !json.Valid([]byte(got)) {
			t.Fatalf("%s: %d %s", name, status, got)
		}
		if strings.Contains(got, body) || !strings.Contains(got, hidden) {
			t.Errorf("%s: a key is shown:\n%s", name, got)
		}
		if cfg.Certificates[0].Key != in || cfg.Routes[0].Rules[0].Filters[0].RequestHeaders.Set[0].Value != in {
			t.Fatal("the configuration itself was changed")
		}
	}
}

func TestSecretsAreHidden(t *testing.T) {
	f := someFake()
	secret := []l7.Header{{Name: "Authorization", Value: "Bearer s3cret"}, {Name: "x-plain", Value: "seen"}}
	change := &l7.HeaderChange{Set: secret, Add: secret}
	match := []l7.ValueMatch{{Name: "cookie", Value: "s3cret"}}
	f.cfg = &l7.Config{
		Certificates: []l7.Certificate{{Name: "c", Chain: "chain", Key: "s3cret, not PEM", KeyFile: "/etc/key.pem"}},
		Routes: []l7.Route{{Name: "r", Rules: []l7.Rule{{
			Filters:  []l7.Filter{{RequestHeaders: change}},
			Backends: []l7.Backend{{Cluster: "b", Filters: []l7.Filter{{ResponseHeaders: change}}}},
			Matches:  []l7.Match{{Headers: match}},
			Fault:    &l7.Fault{Headers: match},
		}}}},
		Telemetry: l7.Telemetry{Tracing: &l7.Tracing{OTLP: "http://user:s3cret@collector:4318/v1/traces", Zipkin: "http://z%zz:s3cret@x"}},
	}
	_, got := get(t, New(Options{Proxy: f, Telemetry: f}), "GET", "/config")
	if strings.Contains(got, "s3cret") {
		t.Error(got)
	}
	for _, want := range []string{"seen", "/etc/key.pem", "collector:4318", `"chain": "chain"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
	if secret[0].Value != "Bearer s3cret" || match[0].Value != "s3cret" {
		t.Error("the configuration itself was changed")
	}
}

func TestDescribe(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := url.Parse("spiffe://shop/ns/shop/sa/web")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(0x1f), Subject: pkix.Name{CommonName: "shop"}, DNSNames: []string{"shop.example"},
		IPAddresses: []net.IP{net.ParseIP("10.0.0.1")}, URIs: []*url.URL{id}, NotBefore: at, NotAfter: at.AddDate(0, 0, 1),
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	got := Describe("shop", c)
	if len(got.SHA256) != 64 {
		t.Error(got.SHA256)
	}
	got.SHA256 = ""
	want := Certificate{Name: "shop", Subject: "CN=shop", Issuer: "CN=ca", Names: []string{"shop.example", "10.0.0.1", "spiffe://shop/ns/shop/sa/web"},
		NotBefore: at, NotAfter: at.AddDate(0, 0, 1), Serial: "1f"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func client(path string) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
}

// serve runs s until stop; the socket is there when it returns.
func serve(t *testing.T, s *Server, path string, is func(os.FileInfo) bool) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if info, err := os.Lstat(path); err == nil && is(info) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no socket")
		}
	}
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	f := someFake()
	var first os.FileInfo
	stop := serve(t, New(Options{Path: path, Proxy: f, Telemetry: f}), path, func(i os.FileInfo) bool { first = i; return true })
	if first.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v", first.Mode())
	}
	ask := func() string {
		res, err := client(path).Get("http://proxy/ready")
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return string(b)
	}
	if got := ask(); got != "ready\n" {
		t.Error(got)
	}
	// A successor takes the path over, and keeps it when the first goes.
	g := someFake()
	g.unready = errors.New("I am the second")
	stopSecond := serve(t, New(Options{Path: path, Proxy: g, Telemetry: g}), path, func(i os.FileInfo) bool { return !os.SameFile(i, first) })
	stop()
	if got := ask(); !strings.Contains(got, "I am the second") {
		t.Error(got)
	}
	stopSecond()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
	// What is no socket is nobody's to replace.
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(Options{Path: path, Proxy: f, Telemetry: f}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "choose another path") {
		t.Error(err)
	}
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	f := someFake()
	stop := serve(t, New(Options{Path: path, Proxy: f, Telemetry: f}), path, func(os.FileInfo) bool { return true })
	res, err := client(path).Get("http://proxy/records?follow=true&last=1")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() string {
		lines.Scan()
		return lines.Text()
	}
	if got := next(); !strings.Contains(got, `"id":"2"`) {
		t.Error(got)
	}
	f.more <- f.records[:1]
	if got := next(); got != `{"missed":3}` {
		t.Error(got)
	}
	if got := next(); !strings.Contains(got, `"id":"1"`) {
		t.Error(got)
	}
	stop() // ends those that follow, too
	if lines.Scan() {
		t.Error("it goes on")
	}
}
