package l7

import (
	"cmp"
	"strings"
)

func (v *validator) cluster(field string, c *Cluster) {
	if !choice(v, field+".protocol", c.Protocol, HTTP1, HTTP2, AutoHTTP, TCP) {
		return
	}
	if c.Protocol == AutoHTTP && c.TLS == nil {
		v.bad(field+".protocol", "add tls, or write http1 or http2", "protocol http is agreed on in the TLS handshake (ALPN), and the cluster has no tls")
	}
	seen := map[string]int{}
	for i := range c.Endpoints {
		v.endpoint(at(field+".endpoints", i), &c.Endpoints[i])
		if first, twice := seen[c.Endpoints[i].Address]; twice {
			v.bad(at(field+".endpoints", i)+".address", "remove one of them; a weight gives an endpoint more", "%s already is the address of %s", quote(c.Endpoints[i].Address), at(field+".endpoints", first))
		} else {
			seen[c.Endpoints[i].Address] = i
		}
	}
	if c.TLS != nil {
		v.clientTLS(field+".tls", c.TLS)
	}
	v.span(field+".proxyProtocol", c.ProxyProtocol, 0, 2)
	v.balancer(field+".balancer", &c.Balancer)
	if c.Outlier != nil {
		v.outlier(field+".outlier", c.Outlier)
	}
	if c.Check != nil {
		v.check(field+".check", c.Check, c)
	}
	v.percent(field+".retryBudget.percent", c.Budget.Percent)
	v.span(field+".retryBudget.minimum", c.Budget.Minimum, 0, 1_000_000)
	v.notNegative(field+".connect", c.Connect)
	v.span(field+".requests", c.Requests, 0, 1<<31-1)
	if l := c.Locality; l != nil {
		if l.Zone == "" {
			v.bad(field+".locality.zone", "write the zone of this proxy", "the zone is missing")
		}
		if l.Overprovision != 0 && l.Overprovision < 100 {
			v.bad(field+".locality.overprovision", "write at least 100", "%d percent would leave healthy endpoints unused", l.Overprovision)
		}
	}
}

func (v *validator) endpoint(field string, e *Endpoint) {
	if strings.HasPrefix(e.Address, ":") {
		v.bad(field+".address", "write for example 10.0.0.1:80", "%s has no host", quote(e.Address))
	} else {
		v.address(field+".address", e.Address, 1)
	}
	if e.Weight != nil && *e.Weight > 1_000_000 {
		v.bad(field+".weight", "write a weight from 0 to 1000000", "%d is out of range", *e.Weight)
	}
	v.span(field+".priority", e.Priority, 0, 128)
	for name := range e.Labels {
		if name == "" {
			v.bad(field+".labels", "write label: value", "a label has no name")
		}
	}
}

func (v *validator) clientTLS(field string, t *ClientTLS) {
	if t.ServerName != "" && !isAddress(t.ServerName) {
		v.hostname(field+".serverName", t.ServerName, false)
	}
	v.noFile(field+".caFile", t.CAFile, t.CA)
	v.identities(field+".servers", t.Servers)
	if t.Certificate != "" {
		v.reference(field+".certificate", "certificate", t.Certificate, v.certificates)
	}
	choice(v, field+".minVersion", t.MinVersion, "1.2", "1.3")
	if t.Insecure && (t.CA != "" || len(t.Servers) > 0) {
		v.bad(field+".insecure", "remove it", "with insecure nothing is verified, and ca and servers mean nothing")
	}
}

func (v *validator) balancer(field string, b *Balancer) {
	known := choice(v, field+".kind", b.Kind, RoundRobin, LeastRequest, PeakEWMA, Random, RingHash, Maglev)
	v.notNegative(field+".decay", b.Decay)
	v.notNegative(field+".slowStart", b.SlowStart)
	v.share(field+".panic", b.Panic)
	if b.Choices != 0 {
		v.span(field+".choices", b.Choices, 2, 100)
	}
	if b.RingSize != 0 {
		v.span(field+".ringSize", b.RingSize, 1, 8<<20)
	}
	if !known {
		return
	}
	kind := cmp.Or(b.Kind, LeastRequest)
	if b.Choices != 0 && kind != LeastRequest && kind != PeakEWMA {
		v.bad(field+".choices", "remove it, or use LeastRequest or PeakEWMA", "%s makes no choice between endpoints", kind)
	}
	if b.RingSize != 0 && kind != RingHash {
		v.bad(field+".ringSize", "remove it, or use RingHash", "%s has no ring", kind)
	}
	if b.Decay != 0 && kind != PeakEWMA {
		v.bad(field+".decay", "remove it, or use PeakEWMA", "%s measures nothing", kind)
	}
}

// share checks an optional percentage.
func (v *validator) share(field string, n *uint32) {
	if n != nil {
		v.percent(field, float64(*n))
	}
}

func (v *validator) outlier(field string, o *Outlier) {
	v.notNegative(field+".interval", o.Interval)
	v.notNegative(field+".baseEjection", o.BaseEjection)
	v.notNegative(field+".maxEjection", o.MaxEjection)
	v.share(field+".maxEjectionPercent", o.MaxEjectionPercent)
	v.share(field+".failurePercent", o.FailurePercent)
	if o.MaxEjection > 0 && o.BaseEjection > o.MaxEjection {
		v.bad(field+".baseEjection", "make it at most maxEjection", "the first ejection would be longer than the longest")
	}
	if o.LatencyFactor != 0 && !(o.LatencyFactor >= 1) {
		v.bad(field+".latencyFactor", "write how many times the median is too slow, such as 3", "%v would eject endpoints that are not slow", o.LatencyFactor)
	}
}

func (v *validator) check(field string, c *Check, of *Cluster) {
	if c.Kind == "" {
		v.bad(field+".kind", "write http, grpc or tcp", "the kind is missing")
		return
	}
	if !choice(v, field+".kind", c.Kind, "http", "grpc", "tcp") {
		return
	}
	if c.Kind == "grpc" && (of.Protocol == "" || of.Protocol == HTTP1 || of.Protocol == TCP) {
		v.bad(field+".kind", "write protocol: http2 in the cluster, or use http or tcp", "the cluster speaks %s, which cannot carry gRPC", cmp.Or(of.Protocol, HTTP1))
	}
	if c.Path != "" && c.Path[0] != '/' {
		v.bad(field+".path", "put / in front of it", "%s does not begin with /", quote(c.Path))
	}
	if c.Host != "" {
		v.headerValue(field+".host", c.Host)
	}
	for i, s := range c.Statuses {
		v.span(at(field+".statuses", i), s, 100, 599)
	}
	if c.Kind != "http" && (c.Path != "" || len(c.Statuses) > 0) {
		v.bad(field+".kind", "remove path and statuses, or use http", "%s checks have no path and no status", c.Kind)
	}
	if c.Kind != "grpc" && c.Service != "" {
		v.bad(field+".service", "remove it, or use kind: grpc", "%s checks have no service", c.Kind)
	}
	v.notNegative(field+".interval", c.Interval)
	v.notNegative(field+".timeout", c.Timeout)
	v.span(field+".healthy", c.Healthy, 0, 100)
	v.span(field+".failed", c.Failed, 0, 100)
}
