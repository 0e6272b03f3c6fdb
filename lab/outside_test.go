package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"moire.dev/moire/explain"
	"moire.dev/moire/lab/scenario"
	"moire.dev/moire/snapshot"
)

// Addresses of the world outside.
const (
	outsideNetns = "moire-t-outside"
	outsidePort  = "moire-t-out"
	// controlNames is where the control plane asks.
	controlNames = "198.18.76.200:53"
)

var outsideAddrs = []string{"192.0.2.1", "192.0.2.9", "192.0.2.25", "192.0.2.26", "192.0.2.27", "192.0.2.53", "192.0.2.66", "192.0.2.99", "192.0.2.100", "192.0.2.101", "192.0.2.102", "192.0.2.103", "192.0.2.104", "192.0.2.105", "203.0.113.1", "203.0.113.9"}

// outside makes a host on the underlay that is no node, with many addresses, to
// which the nodes have routes.
func (l *Lab) outside() (string, error) {
	path, err := makeNetns(outsideNetns)
	if err != nil {
		return "", err
	}
	foot := l.address(200)
	u := underlay{bridge: l.Name}
	if err := u.plug(outsidePort, path, "up0", netip.PrefixFrom(foot, l.Underlay.Bits())); err != nil {
		return "", err
	}
	// It comes again with the address that the nodes still know: to find out that a
	// router is another one takes their kernels ten seconds.
	lines := "ip link set up0 address 02:6d:6f:69:72:65; ip link set lo up; ip route replace 198.18.99.0/24 dev up0"
	for _, a := range outsideAddrs {
		lines += "; ip addr replace " + a + "/32 dev lo"
	}
	if err := InNetns(path, func() error { return sh(lines) }); err != nil {
		return "", err
	}
	for _, n := range l.Nodes {
		err := InNetns(n.Netns, func() error {
			return sh(fmt.Sprintf("ip route replace 192.0.2.0/24 via %s; ip route replace 203.0.113.0/24 via %s", foot, foot))
		})
		if err != nil {
			return "", err
		}
	}
	return path, nil
}

func (l *Lab) noOutside() {
	for _, n := range l.Nodes {
		InNetns(n.Netns, func() error {
			return sh("ip route del 192.0.2.0/24 || true; ip route del 203.0.113.0/24 || true")
		})
	}
	removeNetns(outsideNetns)
}

// nameServer is one outside that knows what scenarios say that it knows.
type nameServer struct {
	mu      sync.Mutex
	addrs   map[string][]netip.Addr // by absolute name
	servers []*dns.Server
}

// serveNames answers at port 53 of every address in the namespace.
func serveNames(netns string) (*nameServer, error) {
	n := &nameServer{addrs: map[string][]netip.Addr{}}
	return n, InNetns(netns, func() error {
		c, err := net.ListenPacket("udp4", "192.0.2.53:53")
		if err != nil {
			return err
		}
		d, err := net.ListenPacket("udp4", controlNames)
		if err != nil {
			return errors.Join(err, c.Close())
		}
		n.servers = []*dns.Server{{PacketConn: c, Handler: n}, {PacketConn: d, Handler: n}}
		for _, s := range n.servers {
			go s.ActivateAndServe() // ends with close
		}
		return nil
	})
}

func (n *nameServer) close() {
	for _, s := range n.servers {
		s.PacketConn.Close()
	}
}

func (n *nameServer) set(name string, addrs []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[dns.CanonicalName(name)] = addrs
}

func (n *nameServer) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.addrs)
}

// ServeDNS answers for a second.
func (n *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	a := new(dns.Msg).SetReply(q)
	name, kind := dns.CanonicalName(q.Question[0].Name), q.Question[0].Qtype
	n.mu.Lock()
	addrs, known := n.addrs[name]
	n.mu.Unlock()
	for _, ip := range addrs {
		head := dns.RR_Header{Name: q.Question[0].Name, Class: dns.ClassINET, Ttl: 1}
		switch {
		case ip.Is4() && kind == dns.TypeA:
			head.Rrtype = kind
			a.Answer = append(a.Answer, &dns.A{Hdr: head, A: ip.AsSlice()})
		case ip.Is6() && kind == dns.TypeAAAA:
			head.Rrtype = kind
			a.Answer = append(a.Answer, &dns.AAAA{Hdr: head, AAAA: ip.AsSlice()})
		}
	}
	if !known {
		a.Rcode = dns.RcodeNameError
	}
	if len(a.Answer) == 0 {
		a.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1}, Ns: "ns.example.", Mbox: "nobody.example.", Minttl: 1}}
	}
	w.WriteMsg(a)
}

// isName: the check goes to what the name service says.
func isName(to string) bool {
	_, err := netip.ParseAddr(to)
	return err != nil && strings.Contains(to, ".") && !strings.Contains(to, "/")
}

// resolve asks the name service of the source's Network, as the source would.
func (r *real) resolve(c *scenario.Check, a explain.Answer) (netip.Addr, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(c.To), dns.TypeA)
	if c.IPv6 {
		q.SetQuestion(dns.Fqdn(c.To), dns.TypeAAAA)
	}
	var answer *dns.Msg
	err := InNetns(r.netns(a.Source.Project+"/"+a.Source.Workload), func() (err error) {
		client := &dns.Client{Timeout: 3 * time.Second}
		answer, _, err = client.Exchange(q, netip.AddrPortFrom(snapshot.NameServer4, 53).String())
		return err
	})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("line %d: ask for %s: %w", c.Line, c.To, err)
	}
	for _, rr := range answer.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			ip, _ := netip.AddrFromSlice(rr.A.To4())
			return ip, nil
		case *dns.AAAA:
			ip, _ := netip.AddrFromSlice(rr.AAAA)
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("line %d: %s has no address: %s", c.Line, c.To, dns.RcodeToString[answer.Rcode])
}

// served asks a service of the node itself.
func (r *real) served(c *scenario.Check, a explain.Answer) error {
	q := new(dns.Msg)
	q.SetQuestion("nobody.moire.internal.", dns.TypeA)
	err := InNetns(r.netns(a.Source.Project+"/"+a.Source.Workload), func() error {
		client := &dns.Client{Net: c.Protocol, Timeout: 3 * time.Second}
		_, _, err := client.Exchange(q, net.JoinHostPort(c.To, "53"))
		return err
	})
	if (err == nil) != (c.Verdict == scenario.Allow) {
		return fmt.Errorf("line %d: %s: asked: %v", c.Line, c.Text, err)
	}
	return nil
}
