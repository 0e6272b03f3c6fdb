package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"moire.dev/moire/snapshot"
)

// upstream is a real server on the loopback; asked counts questions.
type upstream struct {
	addr  netip.AddrPort
	asked atomic.Int64
}

func newUpstream(t *testing.T, answer func(w dns.ResponseWriter, q *dns.Msg)) *upstream {
	t.Helper()
	u := &upstream{}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { u.asked.Add(1); answer(w, q) })
	c, l := onePort(t, "127.0.0.1")
	u.addr = netip.MustParseAddrPort(c.LocalAddr().String())
	var wg sync.WaitGroup
	servers := []*dns.Server{{PacketConn: c, Handler: h}, {Listener: l, Handler: h}}
	for _, s := range servers {
		up := make(chan bool)
		s.NotifyStartedFunc = func() { close(up) }
		wg.Go(func() { s.ActivateAndServe() })
		<-up
	}
	t.Cleanup(func() {
		for _, s := range servers {
			s.Shutdown()
		}
		wg.Wait()
	})
	return u
}

// onePort is one that is free for UDP and TCP.
func onePort(t testing.TB, host string) (c *net.UDPConn, l *net.TCPListener) {
	t.Helper()
	var err error
	for range 20 {
		if c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip(host), 0))); err != nil {
			t.Fatal(err)
		}
		if l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.LocalAddr().String()))); err == nil {
			return c, l
		}
		c.Close()
	}
	t.Fatal(err)
	return nil, nil
}

// zoneFile answers from records; a question for a name that has none is
// denied with the SOA record.
func zoneFile(t *testing.T, soa string, records ...string) func(dns.ResponseWriter, *dns.Msg) {
	var rrs []dns.RR
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		at, known := strings.ToLower(q.Question[0].Name), false
		for _, rr := range rrs {
			if strings.ToLower(rr.Header().Name) != at {
				continue
			}
			known = true
			if k := rr.Header().Rrtype; k == q.Question[0].Qtype || k == dns.TypeCNAME {
				m.Answer = append(m.Answer, dns.Copy(rr))
				if c, ok := rr.(*dns.CNAME); ok {
					at = strings.ToLower(c.Target)
				}
			}
		}
		if len(m.Answer) == 0 {
			if !known {
				m.Rcode = dns.RcodeNameError
			}
			if soa != "" {
				rr, _ := dns.NewRR(soa)
				m.Ns = []dns.RR{rr}
			}
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			m.Truncate(plainSize)
		}
		w.WriteMsg(m)
	}
}

// asking makes a server whose Network acme forwards; clock moves its time.
func asking(t *testing.T, edit func(*snapshot.DNS)) (*Server, *atomic.Int64) {
	t.Helper()
	s := newServer(t, twins(func(s *snapshot.Snapshot) {
		for _, vni := range []snapshot.VNI{acme, globex} {
			n := s.Names[vni]
			n.NoForward = false
			edit(&n)
			s.Names[vni] = n
		}
	}), Config{Dial: func(ctx context.Context, _ snapshot.VNI, inside bool, network string, server netip.AddrPort) (net.Conn, error) {
		if inside {
			return nil, errors.New("nothing is inside in this test")
		}
		return new(net.Dialer).DialContext(ctx, network, server.String())
	}})
	var clock atomic.Int64
	start := time.Now()
	s.now = func() time.Time { return start.Add(time.Duration(clock.Load()) * time.Second) }
	return s, &clock
}

func TestForward(t *testing.T) {
	var many []string
	for i := range 60 {
		many = append(many, fmt.Sprintf("many.example.com. 60 IN A 192.0.2.%d", i+1))
	}
	u := newUpstream(t, zoneFile(t, "example.com. 300 IN SOA ns.example.com. h.example.com. 1 1 1 1 30", append(many,
		"www.example.com. 60 IN CNAME Host.Example.com.", "host.example.com. 20 IN A 192.0.2.1", "host.example.com. 20 IN A 192.0.2.2",
		"stray.example.com. 60 IN CNAME db.shop.moire.internal.", "db.shop.moire.internal. 60 IN A 192.0.2.66", "short.example.com. 0 IN A 192.0.2.3")...))
	s, clock := asking(t, func(d *snapshot.DNS) { d.Forward = []netip.AddrPort{u.addr} })
	got := ask(t, s, acme, "WWW.example.com.", dns.TypeA)
	want := []string{"WWW.example.com. 60 IN CNAME host.example.com.", "host.example.com. 20 IN A 192.0.2.1", "host.example.com. 20 IN A 192.0.2.2"}
	all := texts(got.Answer)
	for i := range all {
		all[i] = strings.Replace(all[i], "Host.Example", "host.example", 1)
	}
	if !slices.Equal(all, want) || got.Authoritative {
		t.Errorf("got %s", got)
	}
	clock.Add(7)
	got = ask(t, s, acme, "www.EXAMPLE.com.", dns.TypeA)
	if u.asked.Load() != 1 || len(got.Answer) != 3 || got.Answer[0].Header().Ttl != 53 || got.Answer[1].Header().Ttl != 13 || got.Answer[0].Header().Name != "www.EXAMPLE.com." {
		t.Errorf("asked %d times, %s", u.asked.Load(), got)
	}
	clock.Add(14)
	if ask(t, s, acme, "www.example.com.", dns.TypeA); u.asked.Load() != 2 {
		t.Errorf("remembered beyond the shortest TTL")
	}
	// Another tenant's memory is another one.
	if ask(t, s, globex, "www.example.com.", dns.TypeA); u.asked.Load() != 3 {
		t.Error("a Network was answered from another's memory")
	}
	// Negative, with the TTL of RFC 2308.
	got = ask(t, s, acme, "nothing.example.com.", dns.TypeA)
	if got.Rcode != dns.RcodeNameError || len(got.Ns) != 1 || got.Ns[0].Header().Ttl != 30 {
		t.Errorf("got %s", got)
	}
	clock.Add(29)
	got = ask(t, s, acme, "nothing.example.com.", dns.TypeA)
	if u.asked.Load() != 4 || got.Ns[0].Header().Ttl != 1 {
		t.Errorf("asked %d times, %s", u.asked.Load(), got)
	}
	got = ask(t, s, acme, "host.example.com.", dns.TypeAAAA)
	if got.Rcode != 0 || len(got.Answer) != 0 || len(got.Ns) != 1 {
		t.Errorf("no data: %s", got)
	}
	// Cut off, asked again by TCP; our own answer is cut off in turn.
	before := u.asked.Load()
	got = ask(t, s, acme, "many.example.com.", dns.TypeA)
	if u.asked.Load() != before+2 || !got.Truncated || len(got.Answer) != 0 {
		t.Errorf("asked %d times, %s", u.asked.Load()-before, got)
	}
	if got = ask(t, s, acme, "many.example.com.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) }); len(got.Answer) != 60 {
		t.Errorf("got %d records", len(got.Answer))
	}
	// Others do not speak for us.
	got = ask(t, s, acme, "stray.example.com.", dns.TypeA)
	if !slices.Equal(texts(got.Answer), []string{"stray.example.com. 60 IN CNAME db.shop.moire.internal.", "db.shop.moire.internal. 5 IN A 10.0.0.3"}) {
		t.Errorf("got %s", got)
	}
	before = u.asked.Load()
	ask(t, s, acme, "short.example.com.", dns.TypeA)
	ask(t, s, acme, "short.example.com.", dns.TypeA)
	if u.asked.Load() != before+2 {
		t.Error("remembered although its TTL is 0")
	}
	if got = ask(t, s, acme, "other.example.com.", dns.TypeA, func(m *dns.Msg) { m.RecursionDesired = false }); got.Rcode != dns.RcodeRefused {
		t.Errorf("without RD: %s", got)
	}
}

// TestDelegations: the longest zone is asked, and speaks for nothing else.
func TestDelegations(t *testing.T) {
	root := newUpstream(t, zoneFile(t, "", "bank.example. 60 IN A 192.0.2.1", "x.corp.test. 60 IN A 192.0.2.99"))
	corp := newUpstream(t, zoneFile(t, "", "x.corp.test. 60 IN A 192.0.2.2", "evil.corp.test. 60 IN CNAME bank.example.", "bank.example. 60 IN A 192.0.2.66",
		"deep.sub.corp.test. 60 IN A 192.0.2.67"))
	sub := newUpstream(t, zoneFile(t, "", "deep.sub.corp.test. 60 IN A 192.0.2.3", "any.team.moire.internal. 60 IN A 192.0.2.4"))
	s, _ := asking(t, func(d *snapshot.DNS) {
		d.Forward = []netip.AddrPort{root.addr}
		d.Delegations = []snapshot.Delegation{{Zone: "corp.test", Servers: []netip.AddrPort{corp.addr}}, {Zone: "sub.corp.test", Servers: []netip.AddrPort{sub.addr}},
			{Zone: "team.moire.internal", Servers: []netip.AddrPort{sub.addr}}}
		d.Records = []snapshot.DNSRecord{{Name: "out.shop.moire.internal.", Type: "CNAME", Data: "evil.corp.test."}}
	})
	for name, want := range map[string][]string{
		"x.corp.test.":             {"x.corp.test. 60 IN A 192.0.2.2"},
		"deep.sub.corp.test.":      {"deep.sub.corp.test. 60 IN A 192.0.2.3"},
		"any.team.moire.internal.": {"any.team.moire.internal. 60 IN A 192.0.2.4"},
		"evil.corp.test.":          {"evil.corp.test. 60 IN CNAME bank.example.", "bank.example. 60 IN A 192.0.2.1"},
		"out.shop.moire.internal.": {"out.shop.moire.internal. 5 IN CNAME evil.corp.test.", "evil.corp.test. 60 IN CNAME bank.example.", "bank.example. 60 IN A 192.0.2.1"},
		"web.shop.moire.internal.": {"web.shop.moire.internal. 5 IN A 10.0.0.2"},
	} {
		for range 2 { // asked, then remembered
			if got := ask(t, s, acme, name, dns.TypeA); !slices.Equal(texts(got.Answer), want) {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

// TestBadServers: silent ones, liars and refusals lead to the next, and all
// end in a failure that says why.
func TestBadServers(t *testing.T) {
	good := newUpstream(t, zoneFile(t, "", "www.example.com. 60 IN A 192.0.2.1"))
	refuses := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeRefused))
	})
	liar := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.66")
		m.Answer = []dns.RR{rr}
		for _, edit := range []func(*dns.Msg){
			func(m *dns.Msg) { m.Id++ },
			func(m *dns.Msg) { m.Question[0].Name = "other.example.com." },
			func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX },
			func(m *dns.Msg) { m.Response = false },
		} {
			x := m.Copy()
			edit(x)
			w.WriteMsg(x)
		}
		w.Write([]byte("garbage"))
	})
	old := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() != nil {
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeFormatError))
			return
		}
		zoneFile(t, "", "old.example.com. 60 IN A 192.0.2.7")(w, q)
	})
	closed := netip.MustParseAddrPort("127.0.0.1:9")
	s, _ := asking(t, func(d *snapshot.DNS) {
		d.Forward = []netip.AddrPort{closed, refuses.addr, liar.addr, good.addr}
		d.Delegations = []snapshot.Delegation{{Zone: "old.example.com", Servers: []netip.AddrPort{old.addr}}, {Zone: "down.test", Servers: []netip.AddrPort{refuses.addr}},
			{Zone: "loop.test", Servers: []netip.AddrPort{netip.AddrPortFrom(snapshot.NameServer4, 53)}}}
	})
	if got := ask(t, s, acme, "www.example.com.", dns.TypeA); !slices.Equal(texts(got.Answer), []string{"www.example.com. 60 IN A 192.0.2.1"}) {
		t.Errorf("got %s", got)
	}
	if got := ask(t, s, acme, "old.example.com.", dns.TypeA); !slices.Equal(texts(got.Answer), []string{"old.example.com. 60 IN A 192.0.2.7"}) {
		t.Errorf("got %s", got)
	}
	for zone, why := range map[string]string{"down.test.": "says REFUSED", "loop.test.": "would be asked what it asks itself"} {
		got := ask(t, s, acme, "x."+zone, dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
		if got.Rcode != dns.RcodeServerFailure || !strings.Contains(got.IsEdns0().String(), why) {
			t.Errorf("%s: %s", zone, got)
		}
	}
	asked := refuses.asked.Load()
	if ask(t, s, acme, "x.down.test.", dns.TypeA); refuses.asked.Load() != asked {
		t.Error("a failure is not remembered for a moment (RFC 9520)")
	}
}

// TestTogether: who asks the same at the same time waits for one answer.
func TestTogether(t *testing.T) {
	slow := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		time.Sleep(100 * time.Millisecond)
		zoneFile(t, "", "www.example.com. 60 IN A 192.0.2.1")(w, q)
	})
	s, _ := asking(t, func(d *snapshot.DNS) { d.Forward = []netip.AddrPort{slow.addr} })
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got := ask(t, s, acme, "www.example.com.", dns.TypeA); len(got.Answer) != 1 {
				t.Errorf("got %s", got)
			}
		})
	}
	wg.Wait()
	if n := slow.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestHostServers: resolv.conf of the node is read again when it changes, and
// we ourselves are left out.
func TestHostServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	h := &hostServers{path: path}
	now := time.Now()
	if _, err := h.get(now); err == nil {
		t.Error("no file, no error")
	}
	for i, c := range []struct{ text, want string }{
		{"nameserver 192.0.2.1\nnameserver 169.254.169.253\nsearch x\n", "[192.0.2.1:53]"},
		{"nameserver 2001:db8::1\nnameserver fd00:4d4f:4952:45::53\nnameserver fe80::1%lo\n", "[[2001:db8::1]:53 [fe80::1%lo]:53]"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		stamp := now.Add(time.Duration(i) * time.Minute)
		os.Chtimes(path, stamp, stamp)
		now = now.Add(2 * time.Second)
		if got, err := h.get(now); err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

// teller notes what it is told, and may refuse.
type teller struct {
	told []string
	err  error
}

func (x *teller) Watched(c snapshot.Addr) bool { return c.IP == ip("10.0.0.2") }
func (x *teller) Wants(_ snapshot.Addr, name string) bool {
	return strings.HasSuffix(name, ".example.com")
}
func (x *teller) Told(_ context.Context, c snapshot.Addr, name string, addrs []netip.Addr, ttl time.Duration) error {
	x.told = append(x.told, fmt.Sprint(c, " ", name, " ", addrs, " ", ttl))
	return x.err
}

// TestTold: what a Policy hangs on is told before the answer is sent, also
// when it is remembered; if that fails, nothing is sent.
func TestTold(t *testing.T) {
	u := newUpstream(t, zoneFile(t, "", "www.example.com. 60 IN CNAME host.other.test.", "host.other.test. 20 IN A 192.0.2.1", "host.other.test. 30 IN AAAA 2001:db8::1",
		"www.example.net. 60 IN A 192.0.2.2"))
	s, _ := asking(t, func(d *snapshot.DNS) { d.Forward = []netip.AddrPort{u.addr} })
	x := &teller{}
	s.cfg.Teller = x
	for range 2 {
		ask(t, s, acme, "WWW.example.com.", dns.TypeA)
	}
	ask(t, s, acme, "www.example.com.", dns.TypeAAAA)
	ask(t, s, acme, "www.example.com.", dns.TypeTXT)
	ask(t, s, acme, "www.example.net.", dns.TypeA)
	want := []string{"100/10.0.0.2 www.example.com [192.0.2.1] 20s", "100/10.0.0.2 www.example.com [192.0.2.1] 20s", "100/10.0.0.2 www.example.com [2001:db8::1] 30s"}
	if !slices.Equal(x.told, want) {
		t.Errorf("told %q", x.told)
	}
	x.err = errors.New("the kernel is full")
	if got := ask(t, s, acme, "www.example.com.", dns.TypeA); got.Rcode != dns.RcodeServerFailure || len(got.Answer) > 0 {
		t.Errorf("got %s", got)
	}
}

func TestLimiter(t *testing.T) {
	l := &limiter{rate: 10, askers: map[netip.Addr]*allowance{}}
	take := func(a string, n int, now int64) (got int) {
		for range n {
			got += btoi(l.take(ip(a), 1, now))
		}
		return got
	}
	if got := take("10.0.0.1", 20, 0); got != 10 {
		t.Errorf("%d at once", got)
	}
	if got := take("10.0.0.2", 5, 0); got != 5 {
		t.Error("one asker's allowance is another's")
	}
	if got := take("10.0.0.1", 20, billion/2); got != 5 {
		t.Errorf("%d after half a second", got)
	}
	for i := range maxAskers + 100 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(i))
		l.take(netip.AddrFrom4(b), 1, billion/2)
	}
	if len(l.askers) > maxAskers+1 {
		t.Errorf("%d askers", len(l.askers))
	}
}

func TestCacheBounds(t *testing.T) {
	c := newCache()
	for i := range 3 * cacheEntries {
		c.put(fmt.Sprint(i), &answer{expires: 10, body: make([]byte, 100)})
		c.get([]byte("0"), 1)
	}
	if c.len() > cacheEntries || c.bytes > cacheBytes || c.get([]byte("0"), 1) == nil || c.get([]byte("5"), 1) != nil {
		t.Errorf("%d answers, %d bytes", c.len(), c.bytes)
	}
	if c.get([]byte("0"), 10) != nil {
		t.Error("too old")
	}
}
