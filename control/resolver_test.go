package control

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
)

// zone is a name server with answers that can be changed.
type zone struct {
	mu      sync.Mutex
	records map[string][]string // by name and type: "db.example.com. A"
	broken  atomic.Bool
	asked   map[string]int
	overTCP int
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	z.mu.Lock()
	defer z.mu.Unlock()
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	if tcp {
		z.overTCP++
	}
	name, kind := strings.ToLower(q.Question[0].Name), dns.TypeToString[q.Question[0].Qtype]
	z.asked[name]++
	known := false
	for k, list := range z.records {
		known = known || strings.HasPrefix(k, name+" ")
		if k != name+" "+kind {
			continue
		}
		for _, text := range list {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
	}
	switch {
	case z.broken.Load():
		m.Rcode, m.Answer = dns.RcodeServerFailure, nil
	case !known:
		m.Rcode = dns.RcodeNameError
	case strings.HasPrefix(name, "large") && !tcp:
		m.Truncated, m.Answer = true, nil
	}
	_ = w.WriteMsg(m) // the resolver is gone if this fails
}

func (z *zone) set(key string, records ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records[key] = records
}

// nameServer serves the zone over UDP and TCP.
func nameServer(t *testing.T, z *zone) string {
	t.Helper()
	z.records, z.asked = map[string][]string{}, map[string]int{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: l, Handler: z}, {PacketConn: p, Handler: z}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return l.Addr().String()
}

func TestResolver(t *testing.T) {
	z := &zone{}
	server := nameServer(t, z)
	z.set("db.example.com. A", "db.example.com. 1 IN CNAME real.example.com.", "real.example.com. 30 IN A 192.0.2.9", "real.example.com. 30 IN A 192.0.2.7", "evil.example.com. 30 IN A 192.0.2.66")
	z.set("db.example.com. AAAA", "db.example.com. 1 IN CNAME real.example.com.", "real.example.com. 30 IN AAAA 2001:db8::7")
	z.set("large.example.com. A", "large.example.com. 60 IN A 192.0.2.8")
	rows := newMemory()
	k := loadedKeeper(t, rows, "a")
	r := newResolver(k, []string{server}, silent(), time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx) })
	defer wg.Wait()
	defer cancel()
	r.want([]string{"db.example.com", "large.example.com", "missing.example.com"})
	addrs := func(list ...string) (out []netip.Addr) {
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	expect := func(name string, want []netip.Addr, complaint string) {
		t.Helper()
		eventually(t, name, func() error {
			got, ok := k.resolved().find(name)
			if !ok || !slices.Equal(got.Addresses, want) || (complaint == "") != (got.Error == "") || !strings.Contains(got.Error, complaint) {
				return fmt.Errorf("got %+v", got)
			}
			return nil
		})
	}
	expect("db.example.com", addrs("192.0.2.7", "192.0.2.9", "2001:db8::7"), "")
	expect("large.example.com", addrs("192.0.2.8"), "")
	expect("missing.example.com", nil, "does not exist")
	z.mu.Lock()
	if z.overTCP == 0 {
		t.Error("a truncated answer was not asked for again over TCP")
	}
	z.mu.Unlock()
	// Each way to write it has a row: the compiler asks for that of the Service.
	r.want([]string{"DB.example.com.", "db.example.com", "large.example.com", "missing.example.com"})
	expect("DB.example.com.", addrs("192.0.2.7", "192.0.2.9", "2001:db8::7"), "")
	// The TTL counts, the alias's too.
	z.set("db.example.com. A", "db.example.com. 1 IN A 192.0.2.10")
	z.set("db.example.com. AAAA")
	expect("db.example.com", addrs("192.0.2.10"), "")
	// A failure keeps the last good answer.
	z.broken.Store(true)
	expect("db.example.com", addrs("192.0.2.10"), "SERVFAIL")
	// Another process reads the same.
	again := loadedKeeper(t, rows, "b")
	if got, _ := again.resolved().find("db.example.com"); !slices.Equal(got.Addresses, addrs("192.0.2.10")) {
		t.Errorf("another process knows %+v", got)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.asked["large.example.com."] > 4 {
		t.Errorf("a name with a TTL of 60 s was asked for %d times", z.asked["large.example.com."])
	}
}

func TestUnresolved(t *testing.T) {
	in := &compile.Input{Services: map[compile.Key]*v1alpha1.Service{}}
	for _, name := range []string{"fine", "stale", "missing", "new", "other"} {
		s := aService(name)
		if name != "other" {
			s.Spec.ExternalName = name + ".example.com"
		}
		in.Services[compile.Key{Project: "shop", Name: name}] = s
	}
	one := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	problems := unresolved(in, newNames(map[string]resolution{"fine.example.com": {Addresses: one}, "stale.example.com": {Addresses: one, Error: "SERVFAIL"}, "missing.example.com": {Error: "does not exist"}}))
	var got []string
	for _, p := range problems {
		got = append(got, p.Object+map[bool]string{true: " warning", false: " error"}[p.Warning])
	}
	if want := []string{"Service shop/missing error", "Service shop/new warning", "Service shop/stale warning"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
