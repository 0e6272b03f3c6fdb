package pcapng

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/snapshot"
)

// frame is TCP from 10.0.0.1:40000 to 10.0.0.2:5432.
func frame(t *testing.T) []byte {
	t.Helper()
	b, err := hex.DecodeString("024d4f49524502000001000108004500002800010000400666cd0a0000010a0000029c40153800000001000000005002ffff0000" + "0000")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func packets(t *testing.T) []snapshot.Captured {
	at := time.Date(2026, 11, 27, 1, 2, 3, 4005, time.UTC)
	one := snapshot.Captured{Capture: "c", Time: at, Node: "n1", Where: "from-workload", VNI: 7, Interface: "shop/web/main", Verdict: "allow",
		Rule: "default/shop/main/open", Length: 1514, Data: frame(t)}
	two := one
	two.Node, two.Where, two.Interface, two.Verdict, two.Rule = "n2", "drop", "", "deny", "isolated/shop/db/ingress"
	two.Time = at.Add(time.Microsecond)
	return []snapshot.Captured{one, two, one}
}

// TestWireshark: tshark opens the file and shows the rule of each packet.
func TestWireshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		if os.Getenv("MOIRE_REQUIRE_ROOT") != "" {
			t.Fatal("tshark is missing; install tshark")
		}
		t.Skip("tshark is missing; install tshark")
	}
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, p := range packets(t) {
		if err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.pcapng")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tshark, "-r", path, "-T", "fields", "-E", "separator=|",
		"-e", "ip.src", "-e", "tcp.dstport", "-e", "frame.len", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "frame.time_epoch").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	want := []string{
		"10.0.0.1|5432|1514|n1 from-workload shop/web/main|allow by default/shop/main/open, node n1, from-workload|1795741323.000004005",
		"10.0.0.1|5432|1514|n2 drop|deny by isolated/shop/db/ingress, node n2, drop|1795741323.000005005",
	}
	if len(lines) != 3 || lines[0] != want[0] || lines[1] != want[1] || lines[2] != lines[0] {
		t.Errorf("got\n%s\nwant\n%s", out, strings.Join(want, "\n"))
	}
}

func TestEmptyFile(t *testing.T) {
	var b bytes.Buffer
	if err := NewWriter(&b).Flush(); err != nil || b.Len() == 0 {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
}

func TestComment(t *testing.T) {
	p := snapshot.Captured{Node: "n1", Where: "drop", Verdict: "deny", Reason: "no-route", VNI: 7}
	if got := Comment(p); got != "deny: no-route, node n1, drop" {
		t.Error(got)
	}
}
