package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"pgregory.net/rapid"
)

// exact compares words field by field, unexported ones of netip included.
var exact = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
var exactServer = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
var exactPrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// overWire marshals as gRPC does.
func overWire[M proto.Message](t rapid.TB, in, out M) M {
	b, err := proto.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSnapshotRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := arbitrary(t)
		rows, err := FromSnapshot(want)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			rows[i] = overWire(t, rows[i], &Row{})
		}
		got, err := ToSnapshot("n1", rows)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, exact, exactServer, exactPrefix); d != "" {
			t.Fatalf("not equal:\n%s", d)
		}
		if got.Version() != want.Version() {
			t.Fatalf("version %s, want %s", got.Version(), want.Version())
		}
		var file bytes.Buffer
		if err := Write(&file, want); err != nil {
			t.Fatal(err)
		}
		if got, err = Read(file.Bytes()); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, exact, exactServer, exactPrefix); d != "" {
			t.Fatalf("file not equal:\n%s", d)
		}
	})
}

func TestDeltaRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old, want := arbitrary(t), arbitrary(t)
		d := snapshot.Diff(old, want)
		if rapid.Bool().Draw(t, "reset") {
			d = snapshot.Diff(nil, want)
		}
		got := join(t, &d)
		if v := old.Apply(got).Version(); v != want.Version() || got.Version != want.Version() {
			t.Fatalf("version %s (%s), want %s", v, got.Version, want.Version())
		}
	})
}

// join sends a delta through messages and puts it together.
func join(t rapid.TB, d *snapshot.Delta) *snapshot.Delta {
	j := NewJoiner("n1")
	var out *snapshot.Delta
	err := FromDelta(d, func(m *Delta) error {
		if n := proto.Size(m); n > ChunkBytes+64<<10 {
			return fmt.Errorf("a message of %d bytes", n)
		}
		got, err := j.Add(overWire(t, m, &Delta{}))
		if out = got; err == nil && (got == nil) != m.More {
			err = errors.New("whole too early or too late")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLargeDeltaIsChunked(t *testing.T) {
	s := big(60_000)
	d := snapshot.Diff(nil, s)
	n := 0
	if err := FromDelta(&d, func(*Delta) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	if n < 3 {
		t.Fatalf("%d messages; want several", n)
	}
	if got := (*snapshot.Snapshot)(nil).Apply(join(t, &d)); got.Version() != s.Version() {
		t.Fatalf("version %s, want %s", got.Version(), s.Version())
	}
}

func big(n int) *snapshot.Snapshot {
	s := &snapshot.Snapshot{Node: "n1", Endpoints: map[snapshot.Addr]snapshot.Endpoint{}}
	for i := range n {
		a := snapshot.Addr{VNI: 7, IP: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
		s.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: "p", Workload: fmt.Sprintf("a-workload-with-a-name-%d", i), Node: "n1", Identity: 3}
	}
	return s
}

func TestRowTooLarge(t *testing.T) {
	k := snapshot.AttachmentKey{Project: "p", Workload: "w", Network: "n"}
	s := &snapshot.Snapshot{Grants: map[snapshot.AttachmentKey]snapshot.Grant{k: {AttachmentKey: k, Error: strings.Repeat("x", MaxRow)}}}
	d := snapshot.Delta{Reset: true, Version: "v", Put: *s}
	if err := FromDelta(&d, func(*Delta) error { return nil }); err == nil {
		t.Error("a row of more than MaxRow was sent")
	}
	if err := Write(io.Discard, s); err == nil {
		t.Error("a row of more than MaxRow was written")
	}
}

func TestWrongKeyIsNotSent(t *testing.T) {
	s := &snapshot.Snapshot{Networks: map[snapshot.VNI]snapshot.Network{4: {VNI: 5, Project: "p", Name: "n"}}}
	if _, err := FromSnapshot(s); err == nil || err.Error() != "network 5 is stored under the key 4" {
		t.Fatalf("got %v", err)
	}
}

func TestReportRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := report(t)
		got, err := ToReport("n1", overWire(t, FromReport(&want), &Report{}))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, exact, exactServer, exactPrefix); d != "" {
			t.Fatalf("not equal:\n%s", d)
		}
	})
}

func someRecord() record.Record {
	return record.Record{
		ID: "r1", Kind: record.Ended, Observer: record.AtSource, Node: "liar", Verdict: record.Allow, Protocol: "tcp",
		Time: time.Unix(9, 0).UTC(), Start: time.Unix(8, 0).UTC(), Rule: "default/p/n/open",
		Source:      record.End{VNI: 5, Address: netip.MustParseAddr("10.0.0.1"), Labels: map[string]string{"app": "web"}},
		Destination: record.End{VNI: 5, Address: netip.MustParseAddr("fd00::1"), Port: 443},
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	var in []record.Record
	for range 2*MaxRecords + 1 {
		in = append(in, someRecord())
	}
	unavailable := 14
	in[1].Observer = record.AtProxy
	in[1].Request = &record.Request{ID: "7f", Protocol: "HTTP/2", Method: "POST", Path: "/a", Status: 200, GRPCStatus: &unavailable, Flags: []string{"UF", "URX"}}
	batches, err := FromRecords(in, 42)
	if err != nil {
		t.Fatal(err)
	}
	var out []record.Record
	for _, b := range batches {
		if n := proto.Size(b); n > MaxMessage {
			t.Fatalf("a batch of %d bytes", n)
		}
		rs, lost, err := ToRecords("n1", overWire(t, b, &RecordBatch{}))
		if err != nil || lost != 42 {
			t.Fatal(err, lost)
		}
		out = append(out, rs...)
	}
	for i := range in {
		in[i].Node = "n1" // who sent it, not who the record says
	}
	if d := cmp.Diff(in, out, exact); d != "" {
		t.Fatalf("not equal:\n%s", d)
	}
	if b, err := FromRecords(nil, 1); err != nil || len(b) != 1 || b[0].Lost != 1 {
		t.Fatalf("no records: %v %v", b, err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last")
	if _, err := ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing file: %v", err)
	}
	for n := range 3 {
		want := big(n * 50)
		if err := WriteFile(path, want); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFile(path)
		if err != nil || got.Version() != want.Version() || got.Node != "n1" {
			t.Fatalf("%v %v", got, err)
		}
	}
	if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v %v", i.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Fatalf("something was left behind: %v %v", entries, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x41
		if _, err := Read(bad); err == nil {
			t.Fatalf("byte %d changed and nobody noticed", i)
		}
		if _, err := Read(whole[:i]); err == nil {
			t.Fatalf("cut at byte %d and nobody noticed", i)
		}
	}
	if err := os.WriteFile(path, whole[:len(whole)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("cut file: %v", err)
	}
}
