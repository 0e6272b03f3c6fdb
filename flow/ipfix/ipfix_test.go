package ipfix

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"moire.dev/moire/flow/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func session(id string, kind record.Kind, src, dst string, packets uint64) record.Record {
	start := time.Now().Add(-3 * time.Second)
	return record.Record{
		ID: id, Kind: kind, Time: start.Add(2 * time.Second), Start: start, Protocol: "tcp", Verdict: record.Allow,
		Source:         record.End{Project: "shop", Network: "main", VNI: 7, Address: netip.MustParseAddr(src), Port: 40000, Workload: "web", Identity: "spiffe://red.moire/ns/shop/sa/web"},
		Destination:    record.End{Project: "shop", Network: "main", VNI: 7, Address: netip.MustParseAddr(dst), Port: 5432, Workload: "db"},
		Rule:           "policy/shop/db/ingress/from-web",
		ForwardPackets: packets, ForwardBytes: packets * 100, ReplyPackets: packets / 2, ReplyBytes: packets * 50,
	}
}

// TestNfdump: a real collector understands every record, and the sums are those
// of the sessions.
func TestNfdump(t *testing.T) {
	for _, tool := range []string{"nfcapd", "nfdump"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("MOIRE_REQUIRE_ROOT") != "" {
				t.Fatalf("%s is missing; install nfdump", tool)
			}
			t.Skipf("%s is missing; install nfdump", tool)
		}
	}
	dir := t.TempDir()
	port := freePort(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	collector := exec.CommandContext(ctx, "nfcapd", "-b", "127.0.0.1", "-p", fmt.Sprint(port), "-w", dir, "-t", "60")
	var said bytes.Buffer
	collector.Stdout, collector.Stderr = &said, &said
	if err := collector.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // it says nothing when it listens

	e := exporter(t, fmt.Sprintf("udp://127.0.0.1:%d", port))
	stop := run(t, e)
	denied := session("d", record.Denied, "10.0.0.9", "10.0.0.2", 0)
	denied.Rule, denied.ForwardPackets, denied.ForwardBytes = "isolated/shop/db/ingress", 3, 180
	nat := session("n", record.Ended, "10.0.0.5", "192.0.2.80", 10)
	nat.TranslatedSource, nat.TranslatedDestination = "192.0.2.1:61000", "192.0.2.80:5432"
	e.Add([]record.Record{session("a", record.Started, "10.0.0.1", "10.0.0.2", 0), session("a", record.Update, "10.0.0.1", "10.0.0.2", 100)})
	e.Add([]record.Record{session("a", record.Ended, "10.0.0.1", "10.0.0.2", 300), session("b", record.Ended, "fd00::1", "fd00::2", 40), denied, nat})
	time.Sleep(time.Second)
	stop()
	if err := collector.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = collector.Wait() // its exit code says nothing about what it got
	flows := read(t, dir, said.String)

	sum := map[string]float64{}
	for _, f := range flows {
		src, _ := f["src4_addr"].(string)
		if src == "" {
			src, _ = f["src6_addr"].(string)
		}
		n, _ := f["in_packets"].(float64)
		sum[src] += n
	}
	want := map[string]float64{"10.0.0.1": 300, "fd00::1": 40, "10.0.0.9": 3, "10.0.0.5": 10}
	for src, n := range want {
		if sum[src] != n {
			t.Errorf("%s: %v packets, want %v\n%v\n%s", src, sum[src], n, flows, said.String())
		}
	}
	if len(sum) != len(want) || e.Lost() != 0 {
		t.Errorf("flows %v, lost %d", sum, e.Lost())
	}
	if text := fmt.Sprint(flows); !strings.Contains(text, "5432") || !strings.Contains(text, "192.0.2.1") {
		t.Errorf("no port or no translated address in %s", text)
	}
}

// read gives the flows of all files of a collector.
func read(t *testing.T, dir string, said func() string) (flows []map[string]any) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "nfcapd.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the collector wrote no file: %v\n%s", err, said())
	}
	for _, f := range files {
		out, err := exec.Command("nfdump", "-r", f, "-o", "json").Output()
		if err != nil {
			t.Fatalf("nfdump: %v\n%s", err, said())
		}
		var some []map[string]any
		if err := json.Unmarshal(out, &some); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		flows = append(flows, some...)
	}
	return flows
}

func freePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func exporter(t *testing.T, collector string) *Exporter {
	t.Helper()
	e, err := New(Config{Collector: collector})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func run(t *testing.T, e *Exporter) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// TestMessages: lengths, sequence numbers and counters of what is on the wire.
func TestMessages(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := exporter(t, "tcp://"+l.Addr().String())
	stop := run(t, e)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const n = 50
	for i := range n {
		e.Add([]record.Record{session(fmt.Sprint(i), record.Ended, "10.0.0.1", "10.0.0.2", 4)})
	}
	records, last := 0, uint32(0)
	for records < n {
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 16)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatal(err)
		}
		size := int(head[2])<<8 | int(head[3])
		body := make([]byte, size-16)
		if _, err := io.ReadFull(conn, body); err != nil {
			t.Fatal(err)
		}
		if head[1] != version || size > maxMessage {
			t.Fatalf("header %x", head)
		}
		if body[0] == 0 && body[1] == setTemplate {
			continue
		}
		sequence := uint32(head[8])<<24 | uint32(head[9])<<16 | uint32(head[10])<<8 | uint32(head[11])
		if sequence != uint32(records) {
			t.Errorf("sequence %d after %d records", sequence, records)
		}
		last = sequence
		records += bytes.Count(body, []byte("policy/shop/db/ingress/from-web"))
	}
	stop()
	if records != n || e.Lost() != 0 {
		t.Errorf("%d records, last sequence %d, lost %d", records, last, e.Lost())
	}
}

// TestNobodyListens: records wait, bounded, and what is too much is counted.
func TestNobodyListens(t *testing.T) {
	e := exporter(t, "tcp://127.0.0.1:1")
	stop := run(t, e)
	for range maxQueue + 10 {
		e.Add([]record.Record{session("x", record.Ended, "10.0.0.1", "10.0.0.2", 1)})
	}
	stop()
	if e.Lost() < 10 {
		t.Errorf("lost %d", e.Lost())
	}
}

func TestBadCollector(t *testing.T) {
	for _, c := range []string{"", "localhost:4739", "http://x", "udp://", "udp://x:1/path"} {
		if _, err := New(Config{Collector: c}); err == nil {
			t.Errorf("%q was taken", c)
		}
	}
}
