package telemetry

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/wire"
)

var addresses = cmpopts.EquateComparable(netip.Addr{})

func TestRecord(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(someConfig())
	r := someRequest(tab)
	r.GRPC, r.Flags, r.Retries, r.Protocol, r.Secure = 14, UpstreamFailed|RetriesExhausted, 1, HTTP2, true
	r.Trace = Trace{ID: [16]byte{0: 0xab, 15: 1}, Parent: [8]byte{7: 2}, Server: [8]byte{7: 3}}
	k := tell(tel, r)
	got, err := json.Marshal(sayer{"edge", 0x10}.record(k))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"10-1-7","kind":"ended","time":"2027-01-15T08:00:00.0021Z","start":"2027-01-15T08:00:00.001Z","node":"edge","observer":"proxy",` +
		`"protocol":"tcp","source":{"vni":0,"address":"10.1.0.9","port":51234,"identity":"spiffe://shop/ns/shop/sa/web"},` +
		`"destination":{"vni":0,"address":"fd00::7","port":8080},"verdict":"allow",` +
		`"forwardPackets":0,"forwardBytes":12,"replyPackets":0,"replyBytes":3456,"serviceAddress":"10.1.0.1:80",` +
		`"route":"shop/front","latency":1100000,"traceID":"ab000000000000000000000000000001",` +
		`"request":{"id":"5f1c0e6a-0000-4000-8000-2b5c8d7e9f01","protocol":"HTTP/2","secure":true,"method":"GET","host":"shop.example:8080","path":"/cart/items?id=7",` +
		`"status":200,"grpcStatus":14,"flags":["UF","URX"],"listener":"web","rule":"cart","cluster":"shop/cart","retries":1,` +
		`"firstByte":900000,"upstream":950000,"spanID":"0000000000000003","parentID":"0000000000000002",` +
		`"agent":"curl/8.5.0","forwarded":"203.0.113.9, 10.0.0.7"}}`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
}

// Both ways to write a record agree, whatever callers send, and others may read
// what is written.
func TestEncodingsAgree(t *testing.T) {
	tel := New(Options{Log: quiet()})
	cfg := someConfig()
	cfg.Name = "ed<ge> \u2028 \"é"
	tab := tel.Open(cfg)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2_000 {
		k := tell(tel, randomRequest(rng, tab))
		rec := tel.sayer().record(k)
		line := string(tel.sayer().appendJSON(nil, k))
		want, err := json.Marshal(&rec)
		if err != nil {
			t.Fatal(err)
		}
		if line != string(want)+"\n" {
			t.Fatalf("written by hand\n%swant\n%s", line, want)
		}
		if strings.Count(line, "\n") != 1 || !utf8.ValidString(line) {
			t.Fatalf("not one line of text: %q", line)
		}
		var back record.Record
		if err := json.Unmarshal([]byte(line), &back); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(rec, back, addresses); d != "" {
			t.Fatal(d)
		}
	}
}

// A control plane takes what a proxy writes.
func TestRecordsTravel(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(someConfig())
	rng := rand.New(rand.NewPCG(3, 4))
	var in []record.Record
	for range 500 {
		in = append(in, tel.sayer().record(tell(tel, randomRequest(rng, tab))))
	}
	batches, err := wire.FromRecords(in, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []record.Record
	for _, b := range batches {
		rs, _, err := wire.ToRecords("edge", b)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rs...)
	}
	if d := cmp.Diff(in, out, addresses); d != "" {
		t.Error(d)
	}
}

func TestAccessLine(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(someConfig())
	r := someRequest(tab)
	line := func() string { return string(tel.sayer().appendLine(nil, tell(tel, r))) }
	if got, want := line(), `[2027-01-15T08:00:00.001Z] "GET /cart/items?id=7 HTTP/1.1" 200 - 12 3456 1 0 "203.0.113.9, 10.0.0.7" "curl/8.5.0" "5f1c0e6a-0000-4000-8000-2b5c8d7e9f01" "shop.example:8080" "[fd00::7]:8080"`+"\n"; got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	r.Reset()
	r.Table, r.Flags, r.Status, r.Path = tab, NoRoute|CallerClosed, 404, []byte(strings.Repeat("/a", 1000))
	cut := strings.Repeat("/a", data/2)
	if got, want := line(), `[2027-01-15T08:00:00.000Z] "- `+cut+`... HTTP/1.0" 404 NR,DC 0 0 0 - "-" "-" "-" "-" "-"`+"\n"; got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

// Nobody writes a line, a quote or a control sequence into the log of others.
func TestNoLogInjection(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(someConfig())
	rng := rand.New(rand.NewPCG(5, 6))
	for range 2_000 {
		k := tell(tel, randomRequest(rng, tab))
		line := string(tel.sayer().appendLine(nil, k))
		quotes := 0
		for i := 0; i < len(line); i++ {
			switch c := line[i]; {
			case c == '\\':
				i++
			case c == '"':
				quotes++
			case c == '\n' && i == len(line)-1:
			case c < 0x20 || c > 0x7e:
				t.Fatalf("byte %#x in %q", c, line)
			}
		}
		if quotes != 12 {
			t.Fatalf("%d quotes in %s", quotes, line)
		}
	}
}

func TestCut(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(someConfig())
	long := []byte(strings.Repeat("x", 3000))
	r := someRequest(tab)
	r.Method, r.Host, r.Path, r.RequestID, r.Caller, r.Forwarded, r.Agent = long, long, long, long, long, long, long
	q := tel.sayer().record(tell(tel, r)).Request
	if d := cmp.Diff([]string{"method", "id", "host", "caller", "forwarded", "path", "agent"}, q.Cut); d != "" {
		t.Error(d)
	}
	if len(q.Path) != pathLeast || pathLeast < 200 || len(q.Host) != maxHost || q.Agent != "" {
		t.Errorf("path %d, host %d, agent %d", len(q.Path), len(q.Host), len(q.Agent))
	}
	if size := unsafe.Sizeof(event{}); size != 768 {
		t.Errorf("an event has %d bytes; is it worth it?", size)
	}
}

func TestHistory(t *testing.T) {
	tel := New(Options{Workers: 2, History: 8, Log: quiet()})
	tab := tel.Open(someConfig())
	stop := run(t, tel)
	r := someRequest(tab)
	for i := range 20 {
		r.Status = 200 + i
		tel.Worker(0).RequestDone(r)
	}
	eventually(t, "all are there", func() bool { return tel.collected.Load() == 20 })
	last := tel.Last(3)
	if len(last) != 3 || last[2].Request.Status != 219 || last[0].Request.Status != 217 {
		t.Errorf("last: %v", last)
	}
	if all := tel.Last(-1); len(all) != 8 {
		t.Errorf("%d are kept", len(all))
	}
	followed := make(chan int, 100)
	ctx := t.Context()
	go tel.Follow(ctx, 2, func(rs []record.Record, missed uint64) error {
		for _, r := range rs {
			followed <- r.Request.Status
		}
		return nil
	})
	for _, want := range []int{218, 219} {
		if got := <-followed; got != want {
			t.Errorf("followed %d, want %d", got, want)
		}
	}
	r.Status = 300
	tel.Worker(1).RequestDone(r)
	select {
	case got := <-followed:
		if got != 300 {
			t.Errorf("followed %d", got)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing came")
	}
	stop()
}

// People find every flag in the book.
func TestFlagsAreDocumented(t *testing.T) {
	book, err := os.ReadFile("../../docs/records.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range flagNames {
		if !strings.Contains(string(book), "`"+name+"`") {
			t.Errorf("docs/records.md does not say what %s is", name)
		}
	}
}
