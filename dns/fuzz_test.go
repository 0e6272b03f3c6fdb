package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"moire.dev/moire/snapshot"
)

// FuzzQuery: whatever comes, nothing breaks, and what goes out can be read,
// is no longer than asked for, and echoes the question.
func FuzzQuery(f *testing.F) {
	for _, name := range []string{"web.shop.moire.internal.", "alias.shop.moire.internal.", "out.shop.moire.internal.", "_http._tcp.api.shop.moire.internal.", "2.0.0.10.in-addr.arpa.", "x.y.example.com.", "."} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypePTR, dns.TypeANY} {
			m := new(dns.Msg)
			m.SetQuestion(name, kind)
			m.SetEdns0(1232, true)
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	s := newServer(f, twins(func(s *snapshot.Snapshot) {
		n := s.Names[acme]
		n.NoForward, n.Forward = false, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}
		n.Records = []snapshot.DNSRecord{
			{Name: "*.example.com.", Type: "A", Data: "192.0.2.1"}, {Name: "alias.shop.moire.internal.", Type: "CNAME", Data: "web.shop.moire.internal."},
			{Name: "out.shop.moire.internal.", Type: "CNAME", Data: "elsewhere.test."},
		}
		s.Names[acme] = n
	}), Config{Rate: -1, Dial: func(context.Context, snapshot.VNI, bool, string, netip.AddrPort) (net.Conn, error) {
		return nil, errors.New("not here")
	}})
	f.Fuzz(func(t *testing.T, m []byte) {
		for _, stream := range []bool{false, true} {
			out := send(t, s, acme, "10.0.0.2", m, stream)
			if out == nil {
				continue
			}
			var got dns.Msg
			if err := got.Unpack(out); err != nil {
				t.Fatalf("%v: %x", err, out)
			}
			if !got.Response || got.Id != binary.BigEndian.Uint16(m) || !stream && len(out) > ednsSize {
				t.Fatalf("%d bytes: %s", len(out), &got)
			}
		}
	})
}

// FuzzForeign: what others say, read, cut, packed, sent again.
func FuzzForeign(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("www.example.com.", dns.TypeA)
	for _, text := range []string{"www.example.com. 60 IN CNAME host.example.com.", "host.example.com. 60 IN A 192.0.2.1", "example.com. 5 IN DNAME example.net."} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	s := newServer(f, twins(nil), Config{Rate: -1})
	v := s.Zones().views[acme]
	f.Fuzz(func(t *testing.T, b []byte) {
		var m dns.Msg
		if m.Unpack(b) != nil {
			return
		}
		key, _ := wireName("www.example.com.")
		q := asked{vni: acme, key: key, kind: dns.TypeA, do: true}
		a := s.accept(v, q, "\x00", &m)
		j := &job{s: s, t: newTenant(-1), v: v, limit: maxMessage}
		question := append([]byte("\x03wWw\x07example\x03com\x00"), 0, 1, 0, 1)
		j.q = query{question: question, kind: dns.TypeA, edns: true}
		out := j.say(nil, a, 0, time.Now().Unix()+3)
		var got dns.Msg
		if err := got.Unpack(out); err != nil {
			t.Fatalf("%v: %x", err, out)
		}
		var r reply
		r.begin(nil, &j.q, maxMessage)
		r.addForeign(a, key, dns.TypeA, time.Now().Unix())
		if err := got.Unpack(r.end(&j.q, int(a.rcode), false, a.note)); err != nil {
			t.Fatal(err)
		}
		told(out, len(question))
	})
}

// BenchmarkHot: a name of the Network, and one that others told.
func BenchmarkHot(b *testing.B) {
	s := newServer(b, twins(func(s *snapshot.Snapshot) {
		for i := range 10_000 {
			endpoint(s, acme, "shop", "w"+string(rune('a'+i%26))+time.Duration(i).String(), netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String())
		}
		n := s.Names[acme]
		n.NoForward, n.Order = false, "random"
		s.Names[acme] = n
	}), Config{Rate: -1})
	t := (*s.tenants.Load())[acme]
	key, _ := wireName("www.example.com.")
	t.cache.put(string(cacheKey(nil, []byte(key), dns.TypeA, false, false)),
		&answer{an: 1, body: block(dns.TypeA, 60, []byte{192, 0, 2, 1}), ttls: []uint16{6}, since: time.Now().Unix(), expires: time.Now().Unix() + 3600})
	for name, of := range map[string]string{"own": "web.shop.moire.internal.", "remembered": "www.example.com.", "absent": "nobody.shop.moire.internal."} {
		b.Run(name, func(b *testing.B) {
			m := new(dns.Msg)
			m.SetQuestion(of, dns.TypeA)
			m.SetEdns0(1232, false)
			q, err := m.Pack()
			if err != nil {
				b.Fatal(err)
			}
			j, buf, client := new(job), make([]byte, 0, ednsSize), ip("10.0.0.2")
			b.ReportAllocs()
			for b.Loop() {
				s.begin(j, acme, client, false)
				if out, more := j.start(q, buf); out == nil || more {
					b.Fatal("not answered at once")
				}
			}
		})
	}
}

// TestHotAllocates: nothing.
func TestHotAllocates(t *testing.T) {
	s := newServer(t, twins(nil), Config{Rate: -1})
	m := new(dns.Msg)
	m.SetQuestion("web.shop.moire.internal.", dns.TypeAAAA)
	q, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	j, buf, client := new(job), make([]byte, 0, ednsSize), ip("10.0.0.2")
	if n := testing.AllocsPerRun(100, func() {
		s.begin(j, acme, client, false)
		j.start(q, buf)
	}); n > 0 {
		t.Errorf("%.0f allocations for a hot name", n)
	}
}

// BenchmarkZones: one row of 10,000 changes.
func BenchmarkZones(b *testing.B) {
	s := twins(func(s *snapshot.Snapshot) {
		for i := range 10_000 {
			endpoint(s, acme, "shop", "w"+time.Duration(i).String(), netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String())
		}
	})
	z := NewZones(s, nil)
	for name, earlier := range map[string]*Zones{"change": z, "anew": nil} {
		b.Run(name, func(b *testing.B) {
			i := 0
			for b.Loop() {
				n := *s
				d := snapshot.Delta{Put: snapshot.Snapshot{Endpoints: map[snapshot.Addr]snapshot.Endpoint{}}}
				endpoint(&d.Put, acme, "shop", "extra", netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}).String())
				NewZones(n.Apply(&d), earlier)
				i++
			}
		})
	}
}
