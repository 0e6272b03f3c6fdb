package proxy

import (
	"fmt"
	"net/netip"

	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/resilience"
	"moire.dev/moire/snapshot/l7"
)

// cluster is what all workers share about a cluster. It lives as long as its
// name is in the configuration.
type cluster struct {
	name   string
	shared *balance.Shared
	limits *resilience.Circuit
}

// settings of a cluster in one configuration.
type settings struct {
	*cluster
	id   int32
	conf *l7.Cluster
	plan *balance.Plan
	ends []endKey   // by endpoint index
	tls  *clientTLS // nil: plain

	connect, idle int64
	two           bool // HTTP/2 (with TLS: when ALPN says so, or always)
	auto          bool // ALPN says
	tcp           bool
	roams         bool // its endpoint is another with each connection
	hashed        bool // the balancer asks for a hash
}

func (cl *cluster) settings(id int, c *l7.Cluster, subsets []map[string]string, now int64, tls *clientTLS) (*settings, error) {
	p, err := cl.shared.Build(c, subsets, now)
	if err != nil {
		return nil, err
	}
	s := &settings{cluster: cl, id: int32(id), conf: c, plan: p, tls: tls,
		connect: int64(c.Connect.Or(5e9)), idle: int64(c.Idle.Or(60e9)),
		two: c.Protocol == l7.HTTP2, auto: c.Protocol == l7.AutoHTTP, tcp: c.Protocol == l7.TCP,
		hashed: c.Balancer.Kind == l7.RingHash || c.Balancer.Kind == l7.Maglev}
	for i := range p.Len() {
		a, err := netip.ParseAddrPort(p.Address(i))
		if err != nil {
			return nil, fmt.Errorf("cluster %s: endpoint %q: not an IP address and port", c.Name, p.Address(i))
		}
		s.ends = append(s.ends, endKey{addr: netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), spiffe: c.Endpoints[i].SPIFFE})
	}
	cl.limits.Configure(c.Circuit, c.Budget)
	return s, nil
}

// spokenLike says whether connections to an endpoint of p may serve s.
func (p *pool) spokenLike(s *settings) bool {
	return p.two == s.two && p.auto == s.auto && p.tcp == s.tcp && p.tls == s.tls && p.conf.ProxyProtocol == s.conf.ProxyProtocol
}
