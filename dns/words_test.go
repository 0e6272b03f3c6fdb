package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Two Networks of two Domains with the same addresses, prefixes and names.
const (
	acme   snapshot.VNI = 100
	globex snapshot.VNI = 200
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func endpoint(s *snapshot.Snapshot, vni snapshot.VNI, project, workload string, addrs ...string) {
	for _, a := range addrs {
		k := snapshot.Addr{VNI: vni, IP: ip(a)}
		s.Endpoints[k] = snapshot.Endpoint{Addr: k, Project: project, Workload: workload}
	}
}

func service(s *snapshot.Snapshot, vni snapshot.VNI, project, name, addr, portName string, protocol uint8, port uint16) snapshot.ServiceKey {
	k := snapshot.ServiceKey{Addr: snapshot.Addr{VNI: vni, IP: ip(addr)}, Protocol: protocol, Port: port}
	s.Services[k] = snapshot.Service{ServiceKey: k, Project: project, Name: name, PortName: portName}
	return k
}

// twins is a snapshot with both.
func twins(edit func(s *snapshot.Snapshot)) *snapshot.Snapshot {
	s := &snapshot.Snapshot{
		Node: "n1", Networks: map[snapshot.VNI]snapshot.Network{}, Names: map[snapshot.VNI]snapshot.DNS{},
		Endpoints: map[snapshot.Addr]snapshot.Endpoint{}, Services: map[snapshot.ServiceKey]snapshot.Service{}, Exits: map[snapshot.VNI]snapshot.Exit{},
	}
	for vni, domain := range map[snapshot.VNI]string{acme: "acme", globex: "globex"} {
		s.Networks[vni] = snapshot.Network{VNI: vni, Project: "shop", Name: "front", Domain: domain, Prefixes: []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd10::/64")}}
		s.Names[vni] = snapshot.DNS{VNI: vni, Zone: "moire.internal", TTL: 5 * time.Second, Order: "fixed", NoForward: true}
		endpoint(s, vni, "shop", "web", "10.0.0.2", "fd10::2")
	}
	endpoint(s, acme, "shop", "db", "10.0.0.3", "fd10::3")
	endpoint(s, globex, "shop", "db", "10.0.0.33")
	endpoint(s, globex, "secret", "vault", "10.0.0.9")
	service(s, acme, "shop", "api", "10.0.0.100", "http", policy.TCP, 80)
	service(s, acme, "shop", "api", "fd10::100", "http", policy.TCP, 80)
	service(s, acme, "shop", "api", "10.0.0.100", "dns", policy.UDP, 53)
	if edit != nil {
		edit(s)
	}
	return s
}

func newServer(t testing.TB, s *snapshot.Snapshot, cfg Config) *Server {
	t.Helper()
	if cfg.Dial == nil {
		cfg.Dial = func(context.Context, snapshot.VNI, bool, string, netip.AddrPort) (net.Conn, error) {
			return nil, errors.New("nobody is asked in this test")
		}
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/nonexistent"
	}
	srv := New(cfg)
	srv.Use(NewZones(s, nil))
	return srv
}

// send lets the server answer a message; nil: it does not.
func send(t testing.TB, s *Server, vni snapshot.VNI, client string, m []byte, stream bool) []byte {
	t.Helper()
	j := new(job)
	if !s.begin(j, vni, ip(client), stream) {
		t.Fatal("no name service")
	}
	out, more := j.start(m, make([]byte, 0, ednsSize))
	if more {
		out = j.finish(context.Background(), nil)
	}
	return out
}

// query asks and reads the answer.
func ask(t testing.TB, s *Server, vni snapshot.VNI, name string, kind uint16, edit ...func(*dns.Msg)) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	for _, e := range edit {
		e(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out := send(t, s, vni, "10.0.0.2", b, false)
	if out == nil {
		t.Fatalf("%s: no answer", name)
	}
	got := new(dns.Msg)
	if err := got.Unpack(out); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if got.Id != m.Id || !got.Response || !got.RecursionAvailable || len(got.Question) != 1 || got.Question[0] != m.Question[0] {
		t.Errorf("%s: header %+v", name, got)
	}
	return got
}

// texts are the records of a section, with one space between fields.
func texts(rrs []dns.RR) []string {
	out := []string{}
	for _, rr := range rrs {
		var b []byte
		for _, c := range []byte(rr.String()) {
			if c == '\t' {
				c = ' '
			}
			b = append(b, c)
		}
		out = append(out, string(b))
	}
	return out
}
