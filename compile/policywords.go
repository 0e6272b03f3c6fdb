package compile

import (
	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/l7"
)

// endpointWords is what a BackendPolicy says of endpoints; nil: nothing.
func endpointWords(s *v1alpha1.BackendPolicySpec) *l7.Cluster {
	if s.Balancer == nil && s.Outlier == nil && s.Check == nil && s.Limits == nil && s.Connections == nil && s.TLS == nil && s.Locality == nil {
		return nil
	}
	c := &l7.Cluster{Outlier: outlierWords(s.Outlier)}
	if b := s.Balancer; b != nil {
		c.Balancer = l7.Balancer{Kind: l7.BalancerKind(b.Kind), Decay: times(b.Decay), SlowStart: times(b.SlowStart), Panic: unsigned(b.PanicPercent), Choices: int(b.Choices), RingSize: int(b.RingSize)}
	}
	if k := s.Check; k != nil {
		c.Check = &l7.Check{Kind: k.Type, Path: k.Path, Host: k.Host, Statuses: ints(k.Statuses), Service: k.Service, Interval: times(k.Interval), Timeout: times(k.Timeout), Healthy: int(k.Successes), Failed: int(k.Failures)}
	}
	if l := s.Limits; l != nil {
		c.Circuit = l7.Circuit{Connections: int(l.Connections), Pending: int(l.Pending), Requests: int(l.Requests), Retries: int(l.Retries)}
		if l.RetryBudget != nil {
			c.Budget = l7.RetryBudget{Percent: float64(l.RetryBudget.Percent), Minimum: int(l.RetryBudget.Minimum)}
		}
	}
	if n := s.Connections; n != nil {
		c.Connect, c.Idle, c.Requests, c.ProxyProtocol = times(n.ConnectTimeout), times(n.IdleTimeout), int(n.MaxRequests), int(n.ProxyProtocol)
	}
	if t := s.TLS; t != nil {
		c.TLS = &l7.ClientTLS{ServerName: t.Hostname, CA: t.CA, Servers: t.Servers, MinVersion: t.MinVersion, Insecure: t.Insecure}
	}
	if l := s.Locality; l != nil {
		c.Locality = &l7.Locality{Overprovision: uint32(l.OverprovisionPercent)}
	}
	return c
}

func outlierWords(o *v1alpha1.Outlier) *l7.Outlier {
	if o == nil {
		return nil
	}
	out := &l7.Outlier{Consecutive5xx: unsigned(o.Consecutive5xx), ConsecutiveGateway: unsigned(o.ConsecutiveGateway), Interval: times(o.Interval),
		BaseEjection: times(o.BaseEjection), MaxEjection: times(o.MaxEjection), MaxEjectionPercent: unsigned(o.MaxEjectionPercent),
		FailurePercent: unsigned(o.FailurePercent), FailureHosts: unsigned(o.FailureHosts), FailureVolume: unsigned(o.FailureVolume), LatencyFactor: float64(o.LatencyPercent) / 100}
	if r := o.SuccessRate; r != nil {
		out.SuccessRateHosts, out.SuccessRateVolume, out.SuccessRateFactor = unsigned(r.Hosts), unsigned(r.Volume), unsigned(r.FactorPerMille)
	}
	return out
}

// requestWords is what a BackendPolicy says of requests; nil: nothing.
func requestWords(s *v1alpha1.BackendPolicySpec) *l7.Rule {
	if s.Retry == nil && s.Hedge == nil && s.Timeouts == nil && len(s.RateLimits) == 0 && len(s.Hash) == 0 && len(s.Subset) == 0 {
		return nil
	}
	r := &l7.Rule{Subset: s.Subset}
	if t := s.Retry; t != nil {
		r.Retry = &l7.Retry{Codes: ints(t.Codes), GRPC: ints(t.GRPC), Attempts: int(t.Attempts), Backoff: times(t.Backoff), Methods: t.Methods, Body: int(t.BodyBytes)}
	}
	if h := s.Hedge; h != nil {
		r.Hedge = &l7.Hedge{Delay: times(h.Delay), Most: int(h.Most)}
	}
	if t := s.Timeouts; t != nil {
		r.Timeouts = l7.Timeouts{Request: times(t.Request), Backend: times(t.BackendRequest)}
	}
	for _, l := range s.RateLimits {
		r.RateLimits = append(r.RateLimits, l7.RateLimit{Requests: int(l.Requests), Per: times(l.Per), Burst: int(l.Burst), By: l.By})
	}
	for _, h := range s.Hash {
		r.Hash = append(r.Hash, l7.HashOn{Header: h.Header, Cookie: h.Cookie, Query: h.Query, Address: h.Address})
	}
	return r
}

func times(d v1alpha1.Duration) l7.Duration { return l7.Duration(d.Time()) }

func unsigned(n *int32) *uint32 {
	if n == nil {
		return nil
	}
	u := uint32(max(*n, 0))
	return &u
}

func ints(list []int32) []int {
	var out []int
	for _, n := range list {
		out = append(out, int(n))
	}
	return out
}
