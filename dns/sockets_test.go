package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"moire.dev/moire/snapshot"
)

// onLoopback serves one Network by UDP and TCP at an address of the loopback.
func onLoopback(t testing.TB, s *Server, host string) netip.AddrPort {
	t.Helper()
	c, l := onePort(t, host)
	at := netip.MustParseAddrPort(c.LocalAddr().String())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.ServePacket(ctx, acme, c) })
	wg.Go(func() { s.ServeStream(ctx, acme, l) })
	t.Cleanup(func() { cancel(); wg.Wait(); c.Close(); l.Close() })
	return at
}

// TestSockets: real clients, both families, UDP and TCP.
func TestSockets(t *testing.T) {
	s := newServer(t, twins(nil), Config{Rate: -1})
	for _, host := range []string{"127.0.0.1", "::1"} {
		at := onLoopback(t, s, host)
		for _, network := range []string{"udp", "tcp"} {
			m := new(dns.Msg)
			m.SetQuestion("web.shop.moire.internal.", dns.TypeAAAA)
			c := dns.Client{Net: network, Timeout: 2 * time.Second}
			got, _, err := c.Exchange(m, at.String())
			if err != nil || len(got.Answer) != 1 {
				t.Errorf("%s %s: %v %s", network, at, err, got)
			}
		}
	}
}

// TestPipeline: several queries on one connection, answered as each is ready,
// not in the order in which they came (RFC 7766); too many connections of one
// client are refused; an idle one does not hold the server up when it ends.
func TestPipeline(t *testing.T) {
	slow := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		time.Sleep(150 * time.Millisecond)
		zoneFile(t, "", "slow.example.com. 60 IN A 192.0.2.1")(w, q)
	})
	s, _ := asking(t, func(d *snapshot.DNS) { d.Forward = []netip.AddrPort{slow.addr} })
	at := onLoopback(t, s, "127.0.0.1")
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var all []byte
	for i, name := range []string{"slow.example.com.", "web.shop.moire.internal.", "db.shop.moire.internal."} {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		m.Id = uint16(i + 1)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(b))), b...)
	}
	for _, part := range [][]byte{all[:1], all[1:40], all[40:]} { // also in pieces
		c.Write(part)
		time.Sleep(5 * time.Millisecond)
	}
	var order []uint16
	conn := &dns.Conn{Conn: c}
	for range 3 {
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		m, err := conn.ReadMsg()
		if err != nil || len(m.Answer) != 1 {
			t.Fatal(m, err)
		}
		order = append(order, m.Id)
	}
	if fmt.Sprint(order) != "[2 3 1]" {
		t.Errorf("answered in order %v", order)
	}
	c.Write([]byte{0, 3, 1, 2, 3}) // no message
	if _, err := conn.ReadMsg(); err == nil {
		t.Error("a connection goes on after nonsense")
	}
	var open []net.Conn
	refused := 0
	for range maxClientStreams + 10 {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			refused++
			continue
		}
		defer c.Close()
		open = append(open, c)
	}
	late := time.Now().Add(300 * time.Millisecond)
	for _, c := range slices.Backward(open) { // the last ones first: they need not wait
		c.SetReadDeadline(late)
		if _, err := c.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
			refused++
		}
	}
	if refused < 10 {
		t.Errorf("%d connections refused", refused)
	}
}

var figure = regexp.MustCompile(`(?m)^ *(Queries lost|Queries per second|Average Latency \(s\)): +([0-9.]+)`)

// perf runs dnsperf against a server.
func perf(t testing.TB, at netip.AddrPort, names string, args ...string) map[string]float64 {
	t.Helper()
	if _, err := exec.LookPath("dnsperf"); err != nil {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatal("dnsperf is not installed (deploy/install)")
		}
		t.Skip("dnsperf is not installed (deploy/install)")
	}
	file := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(file, []byte(names), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"-s", at.Addr().String(), "-p", fmt.Sprint(at.Port()), "-d", file}, args...)
	out, err := exec.Command("dnsperf", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := map[string]float64{}
	for _, m := range figure.FindAllStringSubmatch(string(out), -1) {
		var n float64
		fmt.Sscan(m[2], &n)
		got[m[1]] = n
	}
	return got
}

const hotNames = "web.shop.moire.internal A\nweb.shop.moire.internal AAAA\ndb.shop.moire.internal A\napi.shop.moire.internal A\nnobody.shop.moire.internal A\n"

// TestDnsperf: real load, by UDP and TCP: nothing is lost, all is as it must be.
func TestDnsperf(t *testing.T) {
	s := newServer(t, twins(nil), Config{Rate: -1})
	at := onLoopback(t, s, "127.0.0.1")
	for _, mode := range []string{"udp", "tcp"} {
		got := perf(t, at, hotNames, "-m", mode, "-l", "1", "-c", "8", "-q", "50", "-e")
		if got["Queries lost"] > 0 || got["Queries per second"] < 2000 {
			t.Errorf("%s: %v", mode, got)
		}
	}
	if st := s.Stats(); st.Dropped > 0 || st.Forwarded > 0 || st.Queries < 4000 {
		t.Errorf("%+v", st)
	}
}

// BenchmarkDnsperf says how many queries a second are answered on this machine,
// client and server together.
func BenchmarkDnsperf(b *testing.B) {
	s := newServer(b, twins(nil), Config{Rate: -1})
	at := onLoopback(b, s, "127.0.0.1")
	for _, mode := range []string{"udp", "tcp"} {
		b.Run(mode, func(b *testing.B) {
			for b.Loop() {
				got := perf(b, at, hotNames, "-m", mode, "-l", "5", "-c", "16", "-q", "200", "-e")
				b.ReportMetric(got["Queries per second"], "queries/s")
				b.ReportMetric(got["Queries lost"], "lost")
				b.ReportMetric(got["Average Latency (s)"]*1e6, "µs/query")
			}
		})
	}
}

// TestRate: who asks too much loses; who asks beside it does not notice.
func TestRate(t *testing.T) {
	s := newServer(t, twins(nil), Config{Rate: 500})
	at := onLoopback(t, s, "127.0.0.1")
	got := perf(t, at, strings.Repeat("web.shop.moire.internal A\n", 10), "-l", "1", "-q", "2000", "-Q", "3000", "-t", "1")
	if got["Queries lost"] < 100 {
		t.Errorf("nothing was refused: %v", got)
	}
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c := dns.Client{Dialer: &d, Timeout: time.Second}
	m := new(dns.Msg)
	m.SetQuestion("web.shop.moire.internal.", dns.TypeA)
	if _, _, err := c.Exchange(m, at.String()); err != nil {
		t.Errorf("another client: %v", err)
	}
}
