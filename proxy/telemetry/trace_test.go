package telemetry

import (
	"encoding/hex"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"moire.dev/moire/proxy/message"
)

// head of name: value lines.
func head(lines ...string) *message.Head {
	h := &message.Head{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add([]byte(name), []byte(value))
	}
	return h
}

func linesOf(h *message.Head) (out []string) {
	for _, f := range h.Fields {
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	return out
}

const (
	id1   = "4bf92f3577b34da6a3ce929d0e0e4736"
	span1 = "00f067aa0ba902b7"
)

func TestTraceparentStrict(t *testing.T) {
	ok := "00-" + id1 + "-" + span1
	for value, want := range map[string]string{
		ok + "-00":                "00",
		ok + "-01":                "01",
		ok + "-02":                "02",
		ok + "-03":                "03",
		ok + "-ff":                "03", // only what is known goes on
		"cc" + ok[2:] + "-01":     "01", // a version to come
		"cc" + ok[2:] + "-01-abc": "01",
		"cc" + ok[2:] + "-01.abc": "",
		"ff" + ok[2:] + "-01":     "",
		"":                        "",
		ok:                        "",
		ok + "-":                  "",
		ok + "-0":                 "",
		ok + "-001":               "",
		ok + "-01-":               "",
		ok + "-01-extra":          "",
		ok + "-0G":                "",
		ok + "_01":                "",
		" " + ok + "-01":          "",
		"0" + ok + "-01":          "",
		"00-" + strings.ToUpper(id1) + "-" + span1 + "-01":      "",
		"00-" + id1 + "-" + strings.ToUpper(span1) + "-01":      "",
		"00-" + strings.Repeat("0", 32) + "-" + span1 + "-01":   "",
		"00-" + id1 + "-" + strings.Repeat("0", 16) + "-01":     "",
		"00-" + id1[:31] + "-" + span1 + "-01":                  "",
		"00-" + id1 + "-" + span1 + "1-01":                      "",
		"0X" + ok[2:] + "-01":                                   "",
		"00-" + id1[:30] + "\xc3\xa9-" + span1 + "-01":          "",
		"00-" + strings.Replace(id1, "4", ".", 1) + "-" + span1: "",
		"00-" + id1 + "-" + span1 + "-01, 00-" + id1 + "-" + ok: "",
	} {
		tel := New(Options{Log: quiet()})
		w, tab := tel.Worker(0), tel.Open(tracedConfig(""))
		h := head("traceparent: "+value, "tracestate: a=b")
		var tr Trace
		w.Extract(tab, h, &tr)
		w.Inject(tab, h, &tr, nil)
		got := linesOf(h)[0]
		if want == "" {
			if strings.Contains(got, id1) || len(h.Fields) != 1 {
				t.Errorf("%q: goes on as %q", value, linesOf(h))
			}
			continue
		}
		if want := "traceparent: 00-" + id1 + "-" + hex.EncodeToString(tr.Client[:]) + "-" + want; got != want || linesOf(h)[1] != "tracestate: a=b" {
			t.Errorf("%q: %q, want %q", value, linesOf(h), want)
		}
		if hex.EncodeToString(tr.Parent[:]) != span1 || tr.Client == tr.Parent || tr.Server == tr.Client {
			t.Errorf("%q: spans %x %x %x", value, tr.Parent, tr.Server, tr.Client)
		}
	}
}

func TestTracestate(t *testing.T) {
	long := strings.Repeat("x", 256)
	many := strings.TrimSuffix(strings.Repeat("k=v,", 32), ",")
	for value, kept := range map[string]bool{
		"a=1":             true,
		"a=1,b=2":         true,
		"a=1 , b=2\t,":    true,
		"":                true,
		" ,, ":            true,
		"0a-_*/@x=a b!~":  true,
		"tenant@system=1": true,
		long + "=" + long: true,
		"x" + long + "=1": false,
		"a=" + long + "x": false,
		many:              true,
		many + ",k=v":     false,
		"a":               false,
		"=1":              false,
		"a=":              false,
		"A=1":             false,
		"a b=1":           false,
		"@a=1":            false,
		"a=1=2":           false,
		"a=\x01":          false,
		"a=\xc3\xa9":      false,
		"a=1,b":           false,
		"a=1;b=2":         false,
	} {
		tel := New(Options{Log: quiet()})
		w, tab := tel.Worker(0), tel.Open(tracedConfig(""))
		h := head("x: y", "tracestate: "+value, "traceparent: 00-"+id1+"-"+span1+"-01")
		var tr Trace
		w.Extract(tab, h, &tr)
		w.Inject(tab, h, &tr, nil)
		if got := strings.Contains(strings.Join(linesOf(h), "\n"), "tracestate: "+value); got != kept {
			t.Errorf("%q: kept %t, want %t", value, got, kept)
		}
		if hex.EncodeToString(tr.ID[:]) != id1 {
			t.Errorf("%q: another trace", value)
		}
	}
	// 32 members over several fields.
	tel := New(Options{Log: quiet()})
	h := head("tracestate: "+many, "tracestate: z=1", "traceparent: 00-"+id1+"-"+span1+"-01")
	var tr Trace
	tel.Worker(0).Extract(tel.Open(tracedConfig("")), h, &tr)
	if tr.bits&foreign == 0 {
		t.Error("33 members in two fields go on")
	}
}

func TestB3(t *testing.T) {
	narrowID := id1[16:]
	for _, c := range []struct {
		name string
		in   []string
		out  []string // CLIENT, SERVER and NEW are what was made
	}{
		{"single", []string{"b3: " + id1 + "-" + span1 + "-1"}, []string{"b3: " + id1 + "-CLIENT-1-SERVER"}},
		{"single, with its parent", []string{"b3: " + id1 + "-" + span1 + "-0-" + span1}, []string{"b3: " + id1 + "-CLIENT-0-SERVER"}},
		{"single, narrow", []string{"b3: " + narrowID + "-" + span1 + "-d"}, []string{"b3: " + narrowID + "-CLIENT-d-SERVER"}},
		{"single, not decided", []string{"b3: " + id1 + "-" + span1}, []string{"b3: " + id1 + "-CLIENT-1-SERVER"}},
		{"single wins", []string{"x-b3-traceid: " + narrowID, "x-b3-spanid: " + span1, "x-b3-sampled: 0", "b3: " + id1 + "-" + span1 + "-1"}, []string{"b3: " + id1 + "-CLIENT-1-SERVER"}},
		{"denied", []string{"b3: 0"}, []string{"b3: NEW-CLIENT-0-SERVER"}},
		{"accepted", []string{"b3: 1"}, []string{"b3: NEW-CLIENT-1-SERVER"}},
		{"bad decision", []string{"b3: " + id1 + "-" + span1 + "-2"}, []string{"b3: NEW-CLIENT-1-SERVER"}},
		{"bad parent", []string{"b3: " + id1 + "-" + span1 + "-0-12"}, []string{"b3: NEW-CLIENT-1-SERVER"}},
		{"too long", []string{"b3: " + id1 + "-" + span1 + "-0-" + span1 + "-1"}, []string{"b3: NEW-CLIENT-1-SERVER"}},
		{"zero", []string{"b3: " + strings.Repeat("0", 32) + "-" + span1 + "-1"}, []string{"b3: NEW-CLIENT-1-SERVER"}},
		{"two", []string{"b3: 0", "b3: 0"}, []string{"b3: NEW-CLIENT-1-SERVER"}},
		{"many", []string{"x-b3-traceid: " + id1, "x-b3-spanid: " + span1, "x-b3-parentspanid: " + span1, "x-b3-sampled: 1"},
			[]string{"x-b3-traceid: " + id1, "x-b3-spanid: CLIENT", "x-b3-parentspanid: SERVER", "x-b3-sampled: 1"}},
		{"many, narrow, old decision", []string{"x-b3-traceid: " + narrowID, "x-b3-spanid: " + span1, "x-b3-sampled: false"},
			[]string{"x-b3-traceid: " + narrowID, "x-b3-spanid: CLIENT", "x-b3-parentspanid: SERVER", "x-b3-sampled: 0"}},
		{"many, debug", []string{"x-b3-traceid: " + id1, "x-b3-spanid: " + span1, "x-b3-flags: 1"},
			[]string{"x-b3-traceid: " + id1, "x-b3-spanid: CLIENT", "x-b3-parentspanid: SERVER", "x-b3-flags: 1"}},
		{"many, denied alone", []string{"x-b3-sampled: 0"}, []string{"x-b3-traceid: NEW", "x-b3-spanid: CLIENT", "x-b3-parentspanid: SERVER", "x-b3-sampled: 0"}},
		{"many, no span", []string{"x-b3-traceid: " + id1}, []string{"x-b3-traceid: NEW", "x-b3-spanid: CLIENT", "x-b3-parentspanid: SERVER", "x-b3-sampled: 1"}},
		{"nothing", nil, []string{"x-b3-traceid: NEW", "x-b3-spanid: CLIENT", "x-b3-parentspanid: SERVER", "x-b3-sampled: 1"}},
	} {
		cfg := tracedConfig("b3")
		cfg.Telemetry.Tracing.Sample = 1
		tel := New(Options{Log: quiet()})
		w, tab := tel.Worker(0), tel.Open(cfg)
		h := head(c.in...)
		var tr Trace
		w.Extract(tab, h, &tr)
		w.Inject(tab, h, &tr, nil)
		r := strings.NewReplacer(hex.EncodeToString(tr.Client[:]), "CLIENT", hex.EncodeToString(tr.Server[:]), "SERVER")
		var got []string
		for _, l := range linesOf(h) {
			l = r.Replace(l)
			if !strings.Contains(l, narrowID) {
				l = strings.Replace(l, hex.EncodeToString(tr.ID[:]), "NEW", 1)
			}
			got = append(got, l)
		}
		if d := cmp.Diff(c.out, got); d != "" {
			t.Errorf("%s:\n%s", c.name, d)
		}
	}
}

func TestPropagate(t *testing.T) {
	parent, b3Value := "traceparent: 00-"+id1+"-"+span1+"-01", "b3: "+strings.Repeat("a", 32)+"-"+span1+"-1"
	for _, c := range []struct {
		propagate string
		in        []string
		trace     string // of which one it is
		fields    int
	}{
		{"both", []string{b3Value, parent}, id1, 2},
		{"both", []string{b3Value}, strings.Repeat("a", 32), 2},
		{"w3c", []string{b3Value}, "", 2},
		{"b3", []string{parent, b3Value}, strings.Repeat("a", 32), 2},
	} {
		tel := New(Options{Log: quiet()})
		tab := tel.Open(tracedConfig(c.propagate))
		h := head(c.in...)
		var tr Trace
		tel.Worker(0).Extract(tab, h, &tr)
		tel.Worker(0).Inject(tab, h, &tr, nil)
		if got := hex.EncodeToString(tr.ID[:]); c.trace != "" && got != c.trace || len(h.Fields) != c.fields {
			t.Errorf("%s of %q: trace %s, %q", c.propagate, c.in, got, linesOf(h))
		}
	}
}

// Without tracing, and without anybody to tell of spans, context goes on as it
// came, and the record knows it.
func TestPassedOn(t *testing.T) {
	cfg := tracedConfig("")
	cfg.Telemetry.Tracing.OTLP = ""
	for name, tracing := range map[string]bool{"no tracing": false, "no exporter": true} {
		if !tracing {
			cfg.Telemetry.Tracing = nil
		}
		tel := New(Options{Log: quiet()})
		tab := tel.Open(cfg)
		cfg = tracedConfig("")
		cfg.Telemetry.Tracing.OTLP = ""
		in := []string{"traceparent: 42-" + id1 + "-" + span1 + "-01-what-comes-later", "tracestate: A=!"}
		h := head(in...)
		var tr Trace
		tel.Worker(0).Extract(tab, h, &tr)
		tel.Worker(0).Inject(tab, h, &tr, nil)
		if d := cmp.Diff(in, linesOf(h)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if hex.EncodeToString(tr.ID[:]) != id1 || !tr.Sampled() {
			t.Errorf("%s: %+v", name, tr)
		}
	}
}

func TestSampling(t *testing.T) {
	for _, share := range []float64{0, 0.25, 1} {
		cfg := tracedConfig("")
		cfg.Telemetry.Tracing.Sample = share
		tel := New(Options{Log: quiet()})
		w, tab := tel.Worker(0), tel.Open(cfg)
		const n = 20_000
		kept := 0.0
		for range n {
			var tr Trace
			w.Extract(tab, &message.Head{}, &tr)
			if tr.Sampled() {
				kept++
			}
		}
		if got := kept / n; got < share-0.02 || got > share+0.02 {
			t.Errorf("%v of %v are kept", got, share)
		}
	}
}

func TestRequestID(t *testing.T) {
	w := New(Options{Log: quiet()}).Worker(0)
	h := head("a: b")
	arena := make([]byte, 3, 100)
	id, grown := w.RequestID(h, arena)
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).Match(id) || len(grown) != 39 || &grown[0] != &arena[0] {
		t.Errorf("%s, %d bytes", id, len(grown))
	}
	if got := linesOf(h)[1]; got != "x-request-id: "+string(id) {
		t.Error(got)
	}
	again, grown := w.RequestID(h, grown)
	if string(again) != string(id) || len(grown) != 39 {
		t.Error("the id was there")
	}
}
