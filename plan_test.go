// Package moire_test holds the house plan as a test: who may import whom,
// where heavy dependencies may live, which rooms are pure, how long a file and
// a function may be. Each ban has its reason. See ARCHITECTURE.md.
package moire_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "moire.dev/moire/"

// words are values without behaviour; everybody may import them.
var words = []string{"snapshot", "snapshot/l7", "snapshot/policy", "snapshot/wire", "flow/record", "proxy/message"}

// rooms says for each room what of ours it may import beside words.
var rooms = map[string][]string{
	// words
	"api":             {},
	"api/v1alpha1":    {},
	"snapshot":        {},
	"snapshot/l7":     {},
	"snapshot/policy": {},
	"snapshot/wire":   {},
	"flow/record":     {},
	"proxy/message":   {},
	// organs: never each other
	"api/load":             {"api/v1alpha1"},
	"compile":              {"api/v1alpha1"},
	"explain":              {"proxy/route"}, // pure, and the very code that routes requests: an oracle with routes of its own would be a guess
	"analyze":              {"api/v1alpha1"},
	"store":                {"api", "api/v1alpha1"},
	"ipam":                 {},
	"identity":             {},
	"identity/svid":        {}, // downstairs, as is the next
	"identity/workloadapi": {},
	"discovery":            {},
	"datapath/bpf":         {},
	"datapath/proving":     {"datapath"},
	"datapath":             {"datapath/bpf"},
	"flow":                 {},
	"flow/ipfix":           {},
	"flow/pcapng":          {},
	"dhcp":                 {},
	"dns":                  {},
	"health":               {},
	"scrape":               {},
	"node/keep":            {},
	"node/local":           {},
	"node/mesh":            {},
	"node/proxies":         {"node/keep", "node/mesh", "proxy/door"},
	"node/run":             {"node/local"},
	// rooms of the proxy: words only
	"proxy/authz":       {},
	"proxy/balance":     {},
	"proxy/check":       {},
	"proxy/resilience":  {},
	"proxy/http1":       {},
	"proxy/http2":       {"proxy/http2/hpack"},
	"proxy/http2/hpack": {},
	"proxy/route":       {},
	"proxy/config":      {},
	"proxy/tls":         {},
	"proxy/proxyproto":  {},
	"proxy/admin":       {},
	"proxy/telemetry":   {},
	"proxy/engine":      {},
	"proxy/mesh":        {},
	// both ends of the socket between agent and proxy
	"proxy/door": {},
	"proxy": {"proxy/admin", "proxy/authz", "proxy/balance", "proxy/check", "proxy/door", "proxy/engine", "proxy/http1", "proxy/http2", "proxy/mesh",
		"proxy/proxyproto", "proxy/resilience", "proxy/route", "proxy/telemetry", "proxy/tls"},
	// outside judges of the proxy, and attackers
	"proxy/judge":         {"proxy/judge/attack", "proxy/judge/smuggle", "proxy/judge/stage"},
	"proxy/judge/attack":  {},
	"proxy/judge/smuggle": {"proxy/judge/stage"},
	"proxy/judge/stage":   {},
	// upstairs and downstairs
	"control": {"api/v1alpha1", "compile", "discovery", "explain", "flow", "flow/ipfix", "identity", "ipam", "scrape", "store"},
	"node":    {"datapath", "dhcp", "discovery", "dns", "flow", "health", "identity/svid", "identity/workloadapi", "ipam", "node/local", "node/mesh", "node/proxies", "proxy/door", "scrape"},
	// lab and doors
	"lab/scenario": {"api/load", "api/v1alpha1", "compile", "explain"},
	"lab":          {"api/load", "api/v1alpha1", "compile", "datapath", "explain", "lab/scenario", "lab/shop", "node/local"},
	"lab/shop":     {},
	"lab/demo":     {"examples", "lab"},
	"examples":     {},
	"cli": {"analyze", "api/load", "api/v1alpha1", "cli/check", "cli/fault", "cli/manifest", "cli/remote", "cli/show", "cli/supervise",
		"compile", "explain", "flow/pcapng", "lab/demo", "lab/shop", "node/local", "node/run"},
	"cli/check":       {},
	"cli/fault":       {},
	"cli/manifest":    {"cli/fault"},
	"cli/remote":      {"cli/fault"},
	"cli/show":        {"cli/fault"},
	"cli/supervise":   {},
	"bench":           {"api/v1alpha1", "compile", "datapath", "lab"},
	"bench/proxy":     {},
	"bench/mesh":      {"lab", "node/local"},
	"bench/fleet":     {"api/v1alpha1", "compile", "discovery", "identity"},
	"cmd/moire-proxy": {"proxy", "proxy/admin", "proxy/config", "proxy/door"},
	"cmd/moire":       {"cli"},
	"cmd/moired":      {"control"},
	"cmd/moire-node":  {"datapath", "node", "node/local", "node/proxies"},
}

// heavy dependencies live in few rooms, so that agent and proxy stay small.
var heavy = []struct {
	prefix string
	rooms  []string
	reason string
}{
	{"k8s.io/kubernetes", []string{"store"}, "the API server is 2,000 packages; only store embeds it"},
	{"k8s.io/apimachinery", []string{"analyze", "api/v1alpha1", "api/load", "compile", "store", "control", "cli", "lab", "lab/scenario", "bench", "bench/fleet"}, "kinds carry object metadata; nodes never see kinds"},
	{"k8s.io/", []string{"store", "control", "cli", "cli/remote", "cli/show"}, "client-go costs more than a whole proxy"},
	{"sigs.k8s.io/gateway-api", []string{"api/load", "compile", "control"}, "routes of the standard are kinds; nodes never see kinds"},
	{"go.etcd.io/", []string{"store"}, "one room talks to etcd"},
	{"github.com/cilium/ebpf", []string{"datapath", "datapath/bpf", "lab", "bench"}, "one room talks to the kernel"},
	{"github.com/vishvananda/", []string{"datapath", "datapath/proving", "lab", "bench"}, "one room talks to the kernel"},
	{"github.com/google/nftables", []string{"datapath"}, "one room talks to the kernel"},
	{"github.com/envoyproxy/", nil, "Envoy's protos are the heavy part of xDS"},
	{"github.com/miekg/dns", []string{"dns", "control"}, "names on the wire are read in the name service, and where external names are asked for"},
	{"github.com/spf13/cobra", []string{"cli", "cmd/moired", "cmd/moire-node", "cmd/moire-proxy", "control", "node"}, "only doors parse flags"},
}

// pure rooms decide; whoever decides does not act.
var pure = map[string][]string{
	"proxy/balance":     {"os", "net", "net/http", "log/slog", "math/rand", "math/rand/v2", "context"},
	"proxy/resilience":  {"os", "net", "net/http", "log/slog", "math/rand", "math/rand/v2", "context"},
	"proxy/http1":       {"time", "os", "net", "net/http", "log/slog", "sync", "math/rand", "context"},
	"proxy/http2":       {"time", "os", "net", "net/http", "log/slog", "sync", "math/rand", "context"},
	"proxy/http2/hpack": {"time", "os", "net", "net/http", "log/slog", "sync", "math/rand", "context"},
	"proxy/mesh":        {"time", "os", "net", "net/http", "log/slog", "sync", "math/rand", "context"},
	"proxy/route":       {"time", "os", "net", "net/http", "log/slog", "sync", "math/rand", "context"},
	"proxy/proxyproto":  {"time", "os", "net", "net/http", "log/slog", "sync", "math/rand", "context"},
	"snapshot/policy":   {"time", "os", "net", "net/http", "log/slog", "sync", "math/rand", "context"},
	"snapshot":          {"os", "net", "net/http", "log/slog", "math/rand", "context"},
	"compile":           {"os", "net", "net/http", "log/slog", "math/rand", "context", "os/exec"},
	"analyze":           {"time", "os", "net", "net/http", "log/slog", "sync", "math/rand", "context"},
	"node/mesh":         {"time", "os", "net", "net/http", "log/slog", "sync", "math/rand", "context"},
	"explain":           {"time", "os", "net", "net/http", "log/slog", "sync", "math/rand", "context"},
}

var drawers = []string{"util", "utils", "common", "pkg", "types", "manager", "helpers", "helper", "misc", "base", "shared"}

// longFiles and longFunctions are the written exemptions, each with a reason.
var (
	longFiles     = map[string]string{}
	longFunctions = map[string]string{}
)

const (
	maxFile     = 400
	maxFunction = 80
	// A test may tell a longer story.
	maxTestFile     = 500
	maxTestFunction = 100
)

type pack struct {
	ImportPath string
	Name       string
	Imports    []string
}

func packages(t *testing.T) []pack {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Imports", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var all []pack
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pack
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestWhoMayImportWhom(t *testing.T) {
	for _, p := range packages(t) {
		room := strings.TrimPrefix(p.ImportPath, module)
		if room == strings.TrimSuffix(module, "/") {
			continue
		}
		if slices.Contains(drawers, filepath.Base(room)) || slices.Contains(drawers, p.Name) {
			t.Errorf("%s: a drawer; name the room after its one purpose", room)
		}
		allowed, known := rooms[room]
		if !known {
			t.Errorf("%s is not in the house plan; add it to rooms in plan_test.go with what it may import", room)
			continue
		}
		for _, imp := range p.Imports {
			checkImport(t, room, imp, allowed)
		}
	}
}

func checkImport(t *testing.T, room, imp string, allowed []string) {
	t.Helper()
	if ours, ok := strings.CutPrefix(imp, module); ok {
		if !slices.Contains(words, ours) && !slices.Contains(allowed, ours) {
			t.Errorf("%s must not import %s", room, ours)
		}
		return
	}
	for _, h := range heavy {
		if strings.HasPrefix(imp, h.prefix) {
			if !slices.Contains(h.rooms, room) {
				t.Errorf("%s must not import %s: %s", room, imp, h.reason)
			}
			break
		}
	}
	if slices.Contains(pure[room], imp) {
		t.Errorf("%s is pure and must not import %s", room, imp)
	}
}

func TestEveryRoomSaysWhatItIs(t *testing.T) {
	for room := range rooms {
		if strings.HasPrefix(room, "cmd/") || room == "datapath/bpf" {
			continue
		}
		if _, err := os.Stat(filepath.Join(room, "doc.go")); err != nil {
			t.Errorf("%s has no doc.go that says what comes in, what goes out and what it never does", room)
		}
	}
}

var generated = regexp.MustCompile(`^// Code generated .* DO NOT EDIT\.$`)

func TestLengths(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "tools" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		switch filepath.Ext(path) {
		case ".go":
			checkGoFile(t, path)
		case ".c", ".h":
			checkLines(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkLines(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	limit := maxFile
	if strings.HasSuffix(path, "_test.go") {
		limit = maxTestFile
	}
	if n := bytes.Count(b, []byte("\n")); n > limit && longFiles[path] == "" {
		t.Errorf("%s has %d lines, more than %d; split it by purpose or exempt it in plan_test.go with a reason", path, n, limit)
	}
}

func checkGoFile(t *testing.T, path string) {
	t.Helper()
	if isGenerated(t, path) {
		return
	}
	checkLines(t, path)
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
		name := fmt.Sprintf("%s:%s", path, fn.Name.Name)
		limit := maxFunction
		if strings.HasSuffix(path, "_test.go") {
			limit = maxTestFunction
		}
		if n > limit && longFunctions[name] == "" {
			t.Errorf("%s has %d lines, more than %d", name, n, limit)
		}
	}
}

func isGenerated(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if generated.MatchString(s.Text()) {
			return true
		}
		if strings.HasPrefix(s.Text(), "package ") {
			return false
		}
	}
	return false
}
