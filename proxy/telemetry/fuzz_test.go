package telemetry

import (
	"testing"
	"unicode/utf8"

	"moire.dev/moire/proxy/message"
)

// Whatever a caller sends as trace context: what goes on is valid, and what is
// remembered of the caller is either all or nothing.
func FuzzTraceContext(f *testing.F) {
	parent := "00-" + id1 + "-" + span1 + "-01"
	f.Add(parent, "a=b,c=d", id1+"-"+span1+"-1-"+span1, id1, span1, "1")
	f.Add(parent+"-x", "", "0", id1[16:], "", "d")
	f.Add("cc"+parent[2:]+"-x", "a=b=c", "d", "", span1, "true")
	f.Add("", "=,", "", "", "", "")
	tels := map[string]*Telemetry{}
	tables := map[string]*Table{}
	for _, p := range []string{"w3c", "b3", "both"} {
		tels[p] = New(Options{Log: quiet()})
		tables[p] = tels[p].Open(tracedConfig(p))
	}
	f.Fuzz(func(t *testing.T, parent, state, single, id, span, decision string) {
		for p, tel := range tels {
			w, tab := tel.Worker(0), tables[p]
			h := head("traceparent: "+parent, "tracestate: "+state, "x-b3-traceid: "+id, "x-b3-spanid: "+span, "x-b3-sampled: "+decision)
			if single != "" {
				h.Add(nameB3, []byte(single))
			}
			var tr Trace
			w.Extract(tab, h, &tr)
			if tr.ID == ([16]byte{}) || tr.Server == ([8]byte{}) || tr.bits&decided == 0 {
				t.Fatalf("%s: %+v", p, tr)
			}
			w.Inject(tab, h, &tr, nil)
			var again, multi Trace
			if p != "b3" && (!parseW3C(h, &again) || again.ID != tr.ID || again.Parent != tr.Client || again.Sampled() != tr.Sampled() || again.bits&foreign != 0) {
				t.Fatalf("%s: %q read again is %+v of %+v", p, linesOf(h), again, tr)
			}
			if p != "w3c" && (!parseB3(h, &multi) || multi.Parent != tr.Client || multi.Sampled() != tr.Sampled()) {
				t.Fatalf("%s: %q read again is %+v of %+v", p, linesOf(h), multi, tr)
			}
			if n := count(h, message.Traceparent); n > 1 {
				t.Fatalf("%d traceparents", n)
			}
		}
	})
}

func count(h *message.Head, id message.ID) int {
	_, n := only(h, id)
	return n
}

// Any bytes become one line of text and JSON that says the same.
func FuzzClean(f *testing.F) {
	f.Add([]byte("GET /\r\nx: y"))
	f.Add([]byte("\xff\xfe\u2028\x1b[0m\"\\"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := clean(b)
		if !utf8.ValidString(s) || len(s) > 4*len(b) {
			t.Fatalf("%q", s)
		}
		for _, r := range s {
			if r < 0x20 || r == 0x7f || r == '\u2028' || r == '\u2029' {
				t.Fatalf("%q", s)
			}
		}
		line := appendWord([]byte{'"'}, b)
		for i := 1; i < len(line); i++ {
			switch c := line[i]; {
			case c == '\\':
				i++
			case c == '"' || c < 0x20 || c > 0x7e:
				t.Fatalf("%q", line)
			}
		}
	})
}
