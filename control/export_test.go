package control

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/flow/record"
)

// TestExport: every record goes to the IPFIX collector, and promtool has
// nothing to say about the metrics.
func TestExport(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatal("promtool is missing; install prometheus")
		}
		t.Skip("promtool is missing; install prometheus")
	}
	collector, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer collector.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	r := start(t, Config{Dir: t.TempDir(), RunDir: t.TempDir(), IPFIX: "udp://" + collector.LocalAddr().String(), Metrics: address})
	r.create(domain("acme"), projectOf("shop", "acme"), network("shop", "front", "10.0.0.0/24"))
	a := newAgent(t, r, "n1")
	a.attach("shop", "web", "front")
	rule := "policy/shop/db/ingress/from-web"
	a.ship(record.Record{ID: "1", Kind: record.Ended, Observer: record.AtSource, Verdict: record.Allow, Protocol: "tcp", Rule: rule, Time: time.Now(), Start: time.Now(),
		Source: record.End{VNI: 100, Address: netip.MustParseAddr("10.0.0.1"), Project: "shop"}, Destination: record.End{VNI: 100, Address: netip.MustParseAddr("10.0.0.2"), Project: "shop"}})
	eventually(t, "the record at the collector", func() error {
		b := make([]byte, 2048)
		if err := collector.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		n, _, err := collector.ReadFrom(b)
		if err == nil && !strings.Contains(string(b[:n]), rule) {
			err = errors.New("something else came")
		}
		return err
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(string(body))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v: %s", err, out)
	}
	for _, want := range []string{`moire_control_leading 1`, `moire_control_nodes{connected="true"} 1`, `moire_control_objects{kind="Network"} 1`,
		`moire_control_records_received_total 1`, `moire_control_ipfix_lost_total 0`} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("no %s in\n%s", want, ownMetrics(string(body)))
		}
	}
	if _, err := New(Config{Dir: t.TempDir(), IPFIX: "nowhere"}); err == nil {
		t.Error("a collector that is none was taken")
	}
}

// ownMetrics are the lines of our own metrics.
func ownMetrics(text string) (out string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "moire_") {
			out += fmt.Sprint(line)
		}
	}
	return out
}
