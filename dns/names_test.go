package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

const soa = "moire.internal. 5 IN SOA ns.moire.internal. hostmaster.moire.internal. 1 3600 600 86400 5"

// tenantNames are names of every kind in the Network of acme.
func tenantNames(s *snapshot.Snapshot) {
	n := s.Names[acme]
	n.Records = []snapshot.DNSRecord{
		{Name: "*.apps.shop.moire.internal.", Type: "A", Data: "10.0.0.50"},
		{Name: "alias.shop.moire.internal.", Type: "CNAME", Data: "web.shop.moire.internal."},
		{Name: "loop.shop.moire.internal.", Type: "CNAME", Data: "loop2.shop.moire.internal."},
		{Name: "loop2.shop.moire.internal.", Type: "CNAME", Data: "LOOP.shop.moire.internal."},
		{Name: "gone.shop.moire.internal.", Type: "CNAME", Data: "nobody.shop.moire.internal."},
		{Name: "shop.moire.internal.", Type: "MX", Data: "10 mail.example.com.", TTL: time.Minute},
		{Name: "db.shop.moire.internal.", Type: "TXT", Data: `"hello world" "two"`},
		{Name: "db.shop.moire.internal.", Type: "A", Data: "192.0.2.7"},
		{Name: "pinned.example.com.", Type: "A", Data: "192.0.2.8"},
		{Name: "*.any.example.com.", Type: "AAAA", Data: "2001:db8::8"},
		{Name: "broken.shop.moire.internal.", Type: "A", Data: "not an address"},
	}
	s.Names[acme] = n
	floating := snapshot.ServiceKey{Addr: snapshot.Addr{VNI: acme, IP: ip("10.0.0.200")}}
	s.Services[floating] = snapshot.Service{ServiceKey: floating, Project: "shop", Name: "public", Floating: true, Names: []string{"WWW.example.org."}}
	endpoint(s, acme, "shop", "api", "10.0.0.77") // a Workload named as a Service
	endpoint(s, acme, "shop", "peer.dotted", "10.9.0.4")
}

func TestNames(t *testing.T) {
	s := newServer(t, twins(tenantNames), Config{})
	for _, c := range []struct {
		vni    snapshot.VNI
		name   string
		kind   uint16
		rcode  int
		answer []string
		ns     string
	}{
		{acme, "web.shop.moire.internal.", dns.TypeA, 0, []string{"web.shop.moire.internal. 5 IN A 10.0.0.2"}, ""},
		{acme, "WeB.shoP.moire.internal.", dns.TypeAAAA, 0, []string{"WeB.shoP.moire.internal. 5 IN AAAA fd10::2"}, ""},
		{globex, "db.shop.moire.internal.", dns.TypeA, 0, []string{"db.shop.moire.internal. 5 IN A 10.0.0.33"}, ""},
		{globex, "db.shop.moire.internal.", dns.TypeAAAA, 0, nil, soa},
		{acme, "db.shop.moire.internal.", dns.TypeA, 0, []string{"db.shop.moire.internal. 5 IN A 192.0.2.7"}, ""},
		{acme, "db.shop.moire.internal.", dns.TypeAAAA, 0, []string{"db.shop.moire.internal. 5 IN AAAA fd10::3"}, ""},
		{acme, "db.shop.moire.internal.", dns.TypeTXT, 0, []string{`db.shop.moire.internal. 5 IN TXT "hello world" "two"`}, ""},
		{acme, "vault.secret.moire.internal.", dns.TypeA, dns.RcodeNameError, nil, soa}, // of another tenant
		{acme, "nobody.shop.moire.internal.", dns.TypeA, dns.RcodeNameError, nil, soa},
		{acme, "shop.moire.internal.", dns.TypeA, 0, nil, soa},     // has records of another type
		{globex, "shop.moire.internal.", dns.TypeA, 0, nil, soa},   // has names below it
		{globex, "secret.moire.internal.", dns.TypeA, 0, nil, soa}, //
		{acme, "secret.moire.internal.", dns.TypeA, dns.RcodeNameError, nil, soa},
		{acme, "shop.moire.internal.", dns.TypeMX, 0, []string{"shop.moire.internal. 60 IN MX 10 mail.example.com."}, ""},
		{acme, "moire.internal.", dns.TypeSOA, 0, []string{soa}, ""},
		{acme, "moire.internal.", dns.TypeNS, 0, []string{"moire.internal. 5 IN NS ns.moire.internal."}, ""},
		{acme, "ns.moire.internal.", dns.TypeA, 0, []string{"ns.moire.internal. 5 IN A 169.254.169.253"}, ""},
		{acme, "api.shop.moire.internal.", dns.TypeA, 0, []string{"api.shop.moire.internal. 5 IN A 10.0.0.100"}, ""},
		{acme, "_http._tcp.api.shop.moire.internal.", dns.TypeSRV, 0, []string{"_http._tcp.api.shop.moire.internal. 5 IN SRV 0 100 80 api.shop.moire.internal.", "_http._tcp.api.shop.moire.internal. 5 IN SRV 0 100 80 api.shop.moire.internal."}, ""},
		{acme, "_dns._udp.api.shop.moire.internal.", dns.TypeSRV, 0, []string{"_dns._udp.api.shop.moire.internal. 5 IN SRV 0 100 53 api.shop.moire.internal."}, ""},
		{acme, "_tcp.api.shop.moire.internal.", dns.TypeSRV, 0, nil, soa},
		{acme, "_http._udp.api.shop.moire.internal.", dns.TypeSRV, dns.RcodeNameError, nil, soa},
		{acme, "public.shop.moire.internal.", dns.TypeA, 0, []string{"public.shop.moire.internal. 5 IN A 10.0.0.200"}, ""},
		{acme, "www.example.org.", dns.TypeA, 0, []string{"www.example.org. 5 IN A 10.0.0.200"}, ""},
		{globex, "www.example.org.", dns.TypeA, dns.RcodeRefused, nil, ""},
		{acme, "peer.dotted.shop.moire.internal.", dns.TypeA, 0, []string{"peer.dotted.shop.moire.internal. 5 IN A 10.9.0.4"}, ""},
		{acme, "dotted.shop.moire.internal.", dns.TypeA, 0, nil, soa},
		{acme, "a.apps.shop.moire.internal.", dns.TypeA, 0, []string{"a.apps.shop.moire.internal. 5 IN A 10.0.0.50"}, ""},
		{acme, "a.b.apps.shop.moire.internal.", dns.TypeA, 0, []string{"a.b.apps.shop.moire.internal. 5 IN A 10.0.0.50"}, ""},
		{acme, "a.apps.shop.moire.internal.", dns.TypeAAAA, 0, nil, soa},
		{acme, "apps.shop.moire.internal.", dns.TypeA, 0, nil, soa},
		{acme, "pinned.example.com.", dns.TypeA, 0, []string{"pinned.example.com. 5 IN A 192.0.2.8"}, ""},
		{acme, "pinned.example.com.", dns.TypeAAAA, 0, nil, strings.Replace(soa, "moire.internal.", "pinned.example.com.", 1)},
		{acme, "x.y.any.example.com.", dns.TypeAAAA, 0, []string{"x.y.any.example.com. 5 IN AAAA 2001:db8::8"}, ""},
		{acme, "example.com.", dns.TypeA, dns.RcodeRefused, nil, ""},
		{acme, "alias.shop.moire.internal.", dns.TypeA, 0, []string{"alias.shop.moire.internal. 5 IN CNAME web.shop.moire.internal.", "web.shop.moire.internal. 5 IN A 10.0.0.2"}, ""},
		{acme, "alias.shop.moire.internal.", dns.TypeCNAME, 0, []string{"alias.shop.moire.internal. 5 IN CNAME web.shop.moire.internal."}, ""},
		{acme, "alias.shop.moire.internal.", dns.TypeTXT, 0, []string{"alias.shop.moire.internal. 5 IN CNAME web.shop.moire.internal."}, soa},
		{acme, "gone.shop.moire.internal.", dns.TypeA, dns.RcodeNameError, []string{"gone.shop.moire.internal. 5 IN CNAME nobody.shop.moire.internal."}, soa},
		{acme, "loop.shop.moire.internal.", dns.TypeA, dns.RcodeServerFailure, nil, ""},
		{acme, "broken.shop.moire.internal.", dns.TypeA, dns.RcodeNameError, nil, soa},
		{acme, "2.0.0.10.in-addr.arpa.", dns.TypePTR, 0, []string{"2.0.0.10.in-addr.arpa. 5 IN PTR web.shop.moire.internal."}, ""},
		{globex, "33.0.0.10.in-addr.arpa.", dns.TypePTR, 0, []string{"33.0.0.10.in-addr.arpa. 5 IN PTR db.shop.moire.internal."}, ""},
		{acme, "33.0.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, nil, soa},
		{acme, "0.0.10.in-addr.arpa.", dns.TypePTR, 0, nil, soa},
		{acme, "10.in-addr.arpa.", dns.TypePTR, 0, nil, soa},
		{acme, "4.0.9.10.in-addr.arpa.", dns.TypePTR, 0, []string{"4.0.9.10.in-addr.arpa. 5 IN PTR peer.dotted.shop.moire.internal."}, ""},
		{acme, "253.169.254.169.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, nil, soa},
		{acme, "1.2.0.192.in-addr.arpa.", dns.TypePTR, dns.RcodeRefused, nil, ""},
		{acme, dns.Fqdn(must(dns.ReverseAddr("fd10::3"))), dns.TypePTR, 0, []string{must(dns.ReverseAddr("fd10::3")) + " 5 IN PTR db.shop.moire.internal."}, ""},
		{acme, must(dns.ReverseAddr("fd10::9")), dns.TypePTR, dns.RcodeNameError, nil, soa},
		{acme, "web.shop.moire.internal.", dns.TypeANY, 0, []string{`web.shop.moire.internal. 3600 IN HINFO "RFC8482" ""`}, ""},
		{acme, ".", dns.TypeNS, dns.RcodeRefused, nil, ""},
	} {
		got := ask(t, s, c.vni, c.name, c.kind)
		ns := []string{}
		if c.ns != "" {
			ns = []string{c.ns}
		}
		answer := append([]string{}, c.answer...)
		if got.Rcode != c.rcode || !slices.Equal(texts(got.Answer), answer) || !slices.Equal(texts(got.Ns), ns) {
			t.Errorf("%d %s %s: got\n%s", c.vni, c.name, dns.TypeToString[c.kind], got)
		}
		if got.Authoritative != (c.rcode != dns.RcodeRefused && c.rcode != dns.RcodeServerFailure) {
			t.Errorf("%d %s: authority %v", c.vni, c.name, got.Authoritative)
		}
	}
	srv := ask(t, s, acme, "_http._tcp.api.shop.moire.internal.", dns.TypeSRV)
	if extra := texts(srv.Extra); !slices.Contains(extra, "api.shop.moire.internal. 5 IN A 10.0.0.100") || !slices.Contains(extra, "api.shop.moire.internal. 5 IN AAAA fd10::100") {
		t.Errorf("extra %v", extra)
	}
	if p := s.Zones().Problems()[acme]; len(p) != 1 || !strings.Contains(p[0], "broken") {
		t.Errorf("problems %v", p)
	}
	if got := s.Zones().Lookup(acme, "alias.shop.moire.internal"); !slices.Equal(got, []netip.Addr{ip("10.0.0.2"), ip("fd10::2")}) {
		t.Errorf("looked up %v", got)
	}
	for _, name := range []string{"loop.shop.moire.internal", "www.example.com", "nobody.shop.moire.internal", "a..b"} {
		if got := s.Zones().Lookup(acme, name); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func must(s string, err error) string {
	if err != nil {
		panic(err)
	}
	return s
}

// TestProtocol: what clients send that is no plain question.
func TestProtocol(t *testing.T) {
	s := newServer(t, twins(func(s *snapshot.Snapshot) {
		for i := range 100 {
			endpoint(s, acme, "shop", "many", fmt.Sprintf("10.0.1.%d", i))
		}
	}), Config{})
	web := "web.shop.moire.internal."
	edns := func(size uint16, do bool) func(*dns.Msg) { return func(m *dns.Msg) { m.SetEdns0(size, do) } }
	got := ask(t, s, acme, web, dns.TypeA, edns(4096, true))
	if o := got.IsEdns0(); o == nil || o.UDPSize() != 1232 || !o.Do() || o.Version() != 0 {
		t.Errorf("EDNS %v", o)
	}
	if ask(t, s, acme, web, dns.TypeA).IsEdns0() != nil {
		t.Error("EDNS for who has none (RFC 6891, 7)")
	}
	for _, c := range []struct {
		edit  func(*dns.Msg)
		rcode int
	}{
		{func(m *dns.Msg) { m.SetEdns0(512, false); m.IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
		{func(m *dns.Msg) { m.SetEdns0(512, false); m.SetEdns0(512, false) }, dns.RcodeFormatError},
		{func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		{func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }, dns.RcodeRefused},
		{func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT }, dns.RcodeFormatError},
		{func(m *dns.Msg) {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: web, Rrtype: 1, Class: 1}, A: ip("1.2.3.4").AsSlice()}}
		}, dns.RcodeFormatError},
	} {
		m := new(dns.Msg)
		m.SetQuestion(web, dns.TypeA)
		c.edit(m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		got := new(dns.Msg)
		if err := got.Unpack(send(t, s, acme, "10.0.0.2", b, false)); err != nil || got.Rcode != c.rcode || len(got.Answer) > 0 {
			t.Errorf("wanted %s: %v %s", dns.RcodeToString[c.rcode], err, got)
		}
	}
	m := new(dns.Msg)
	m.SetQuestion(web, dns.TypeA)
	m.Response = true
	b, _ := m.Pack()
	if send(t, s, acme, "10.0.0.2", b, false) != nil || send(t, s, acme, "10.0.0.2", []byte{1, 2, 3}, false) != nil {
		t.Error("what is no query is answered")
	}
	m.Response, m.Opcode = false, dns.OpcodeNotify
	b, _ = m.Pack()
	if out := send(t, s, acme, "10.0.0.2", b, false); out[3]&0xf != dns.RcodeNotImplemented {
		t.Errorf("NOTIFY: %x", out)
	}
	// Truncation, by the size that the client takes.
	many := "many.shop.moire.internal."
	for _, c := range []struct {
		size uint16
		tc   bool
		n    int
	}{{0, true, 0}, {512, true, 0}, {4096, true, 0}} {
		var edit []func(*dns.Msg)
		if c.size > 0 {
			edit = append(edit, edns(c.size, false))
		}
		if got := ask(t, s, acme, many, dns.TypeA, edit...); got.Truncated != c.tc || len(got.Answer) != c.n || got.Rcode != 0 {
			t.Errorf("size %d: %s", c.size, got)
		}
	}
	m = new(dns.Msg)
	m.SetQuestion(many, dns.TypeA)
	b, _ = m.Pack()
	whole := new(dns.Msg)
	if err := whole.Unpack(send(t, s, acme, "10.0.0.2", b, true)); err != nil || len(whole.Answer) != 100 || whole.Truncated {
		t.Errorf("by TCP: %d records, %v", len(whole.Answer), err)
	}
}

// TestOrder of several addresses.
func TestOrder(t *testing.T) {
	for _, order := range []string{"fixed", "random", "round-robin"} {
		s := newServer(t, twins(func(s *snapshot.Snapshot) {
			endpoint(s, acme, "shop", "few", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14")
			n := s.Names[acme]
			n.Order = order
			s.Names[acme] = n
		}), Config{})
		first := map[string]int{}
		for range 400 {
			got := ask(t, s, acme, "few.shop.moire.internal.", dns.TypeA)
			all := texts(got.Answer)
			first[all[0]]++
			slices.Sort(all)
			if len(slices.Compact(all)) != 4 {
				t.Fatalf("%s: %s", order, got)
			}
		}
		want := map[string][2]int{"fixed": {400, 400}, "random": {50, 150}, "round-robin": {100, 100}}[order]
		for name, n := range first {
			if n < want[0] || n > want[1] {
				t.Errorf("%s: %s came first %d times", order, name, n)
			}
		}
	}
}

// TestZonesByParts: Zones that were made from earlier ones are those that are
// made at once, and the earlier ones did not change.
func TestZonesByParts(t *testing.T) {
	look := func(z *Zones) map[string]string {
		out := map[string]string{}
		for vni, v := range z.views {
			for k, e := range v.names {
				out[fmt.Sprint(vni, " ", textName(k))] = fmt.Sprint(e.addrs, e.srv, len(e.custom), e.a, e.aaaa, e.found)
			}
			out[fmt.Sprint(vni)] = fmt.Sprint(v.below, v.ptr)
		}
		return out
	}
	rapid.Check(t, func(t *rapid.T) {
		s := twins(nil)
		z := NewZones(s, nil)
		for range 5 {
			n := *s
			n.Endpoints, n.Services = map[snapshot.Addr]snapshot.Endpoint{}, map[snapshot.ServiceKey]snapshot.Service{}
			n.Exits = map[snapshot.VNI]snapshot.Exit{}
			if rapid.Bool().Draw(t, "exit") {
				n.Exits[acme] = snapshot.Exit{VNI: acme}
			}
			for range rapid.IntRange(0, 8).Draw(t, "endpoints") {
				vni := rapid.SampledFrom([]snapshot.VNI{acme, globex, 300}).Draw(t, "vni")
				endpoint(&n, vni, rapid.SampledFrom([]string{"shop", "bank"}).Draw(t, "project"), rapid.SampledFrom([]string{"a", "b", "b.c"}).Draw(t, "name"),
					rapid.SampledFrom([]string{"10.0.0.2", "10.0.0.3", "fd10::2"}).Draw(t, "address"))
			}
			for range rapid.IntRange(0, 6).Draw(t, "services") {
				vni := rapid.SampledFrom([]snapshot.VNI{acme, globex, snapshot.Outside}).Draw(t, "vni")
				k := service(&n, vni, "shop", rapid.SampledFrom([]string{"a", "s"}).Draw(t, "name"), rapid.SampledFrom([]string{"10.0.0.2", "10.0.0.100"}).Draw(t, "address"),
					rapid.SampledFrom([]string{"", "http"}).Draw(t, "port name"), policy.TCP, uint16(rapid.IntRange(80, 82).Draw(t, "port")))
				x := n.Services[k]
				if x.Floating = rapid.Bool().Draw(t, "floating"); x.Floating {
					x.Names = []string{"www.example.org."}
				}
				n.Services[k] = x
			}
			before := look(z)
			next := NewZones(&n, z)
			if d := cmp.Diff(look(NewZones(&n, nil)), look(next)); d != "" {
				t.Fatal(d)
			}
			if d := cmp.Diff(before, look(z)); d != "" {
				t.Fatal("the earlier Zones changed", d)
			}
			s, z = &n, next
		}
	})
	s := twins(nil)
	z := NewZones(s, nil)
	if again := NewZones(s, z); again.views[acme] != z.views[acme] {
		t.Error("nothing changed, and it was made anew")
	}
}

func TestReversed(t *testing.T) {
	for name, want := range map[string]string{
		"1.2.3.4.in-addr.arpa.": "4.3.2.1/32", "3.4.in-addr.arpa.": "4.3.0.0/16", "in-addr.arpa.": "0.0.0.0/0",
		"1.2.3.4.5.in-addr.arpa.": "", "x.in-addr.arpa.": "", "01.in-addr.arpa.": "", "256.in-addr.arpa.": "", "arpa.": "",
		"8.b.d.0.1.0.0.2.ip6.arpa.": "2001:db8::/32", "g.ip6.arpa.": "", "ip6.arpa.": "::/0",
	} {
		key, _ := wireName(name)
		p, ok := reversed([]byte(key))
		if ok != (want != "") || ok && p != netip.MustParsePrefix(want) {
			t.Errorf("%s: %v %v", name, p, ok)
		}
	}
}
