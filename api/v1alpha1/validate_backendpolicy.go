package v1alpha1

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

var (
	durationText  = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)
	headerText    = regexp.MustCompile(`^[!#$%&'*+.^_|~0-9A-Za-z-]+$`)
	rateLimitBy   = regexp.MustCompile(`^(address|identity|header:[!#$%&'*+.^_|~0-9A-Za-z-]+)$`)
	serverURI     = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://[^/]+`)
	upperWord     = regexp.MustCompile(`^[A-Z]+$`)
	balancerKinds = []string{BalancerRoundRobin, BalancerLeastRequest, BalancerPeakEWMA, BalancerRandom, BalancerRingHash, BalancerMaglev}
)

// Time is the duration; 0 when it is empty or none.
func (d Duration) Time() time.Duration {
	t, err := time.ParseDuration(string(d))
	if err != nil || !durationText.MatchString(string(d)) {
		return 0
	}
	return t
}

// duration checks a time; required says that it must be there.
func (j *judge) duration(field string, d Duration, required bool) {
	switch {
	case d == "" && required:
		j.add(CodeMissing, field, "write a time such as 250ms or 10s", "the time is missing")
	case d != "" && !durationText.MatchString(string(d)):
		j.add(CodeDuration, field, "write for example 250ms, 10s or 1h30m", "%q is not a time", string(d))
	}
}

// numberIf checks a number that may be left out.
func (j *judge) numberIf(field string, n *int32, low, high int32) {
	if n != nil {
		j.number(field, *n, low, high)
	}
}

// positive checks a number that is left out when it is 0.
func (j *judge) positive(field string, n, high int32) {
	if n != 0 {
		j.number(field, n, 1, high)
	}
}

const most = 1<<31 - 1

// policyTargets checks what a BackendPolicy or FaultPolicy is attached to.
func (j *judge) policyTargets(list []PolicyTarget) {
	if len(list) == 0 {
		j.add(CodeMissing, "spec.targetRefs", "write at least one, such as - {kind: Service, name: web}", "the targets are missing")
	}
	if !j.count("spec.targetRefs", len(list), 16) {
		return
	}
	for i, t := range list {
		field := fmt.Sprintf("spec.targetRefs[%d]", i)
		if t.Kind == "" {
			j.add(CodeMissing, field+".kind", "write Service, HTTPRoute or GRPCRoute", "the kind is missing")
		} else {
			j.choice(field+".kind", t.Kind, TargetService, TargetHTTPRoute, TargetGRPCRoute)
		}
		if t.Name == "" {
			j.add(CodeMissing, field+".name", "write the name of an object of the project", "the name is missing")
		}
		j.length(field+".name", t.Name, 253)
		j.length(field+".sectionName", t.SectionName, 253)
		if t.Port != 0 {
			j.number(field+".port", t.Port, 1, 65535)
			if t.Kind != TargetService {
				j.add(CodeTarget, field+".port", "name the rule of the route in sectionName", "only a Service has ports")
			}
			if t.SectionName != "" {
				j.add(CodeTarget, field+".port", "write one of them", "the port is named by sectionName and by its number")
			}
		}
		if first := slices.Index(list, t); first < i {
			j.add(CodeRepeated, field, "remove one", "targetRefs[%d] is the same", first)
		}
	}
}

// ValidateBackendPolicy says what is wrong with a BackendPolicy.
func ValidateBackendPolicy(p *BackendPolicy) []Problem {
	j := newJudge("BackendPolicy", p.Namespace, p.Name, true)
	s := &p.Spec
	j.policyTargets(s.TargetRefs)
	endpoints := []struct {
		field string
		set   bool
	}{
		{"balancer", s.Balancer != nil}, {"outlier", s.Outlier != nil}, {"check", s.Check != nil}, {"limits", s.Limits != nil},
		{"connections", s.Connections != nil}, {"tls", s.TLS != nil}, {"locality", s.Locality != nil},
	}
	says := s.Retry != nil || s.Hedge != nil || s.Timeouts != nil || s.RateLimits != nil || s.Hash != nil || s.Subset != nil
	route := slices.ContainsFunc(s.TargetRefs, func(t PolicyTarget) bool { return t.Kind != TargetService && t.Kind != "" })
	for _, part := range endpoints {
		says = says || part.set
		if part.set && route {
			j.add(CodeTarget, "spec."+part.field, "put it into a BackendPolicy that is attached to the Service", "a route has no endpoints, so it is for Services only")
		}
	}
	if !says {
		j.add(CodeEmptyPolicy, "spec", "write for example retry: {attempts: 2}", "the policy says nothing")
	}
	j.balancer("spec.balancer", s.Balancer)
	j.outlier("spec.outlier", s.Outlier)
	j.activeCheck("spec.check", s.Check)
	j.backendLimits("spec.limits", s.Limits)
	j.connections("spec.connections", s.Connections)
	j.backendTLS("spec.tls", s.TLS)
	if l := s.Locality; l != nil && l.OverprovisionPercent != 0 {
		j.number("spec.locality.overprovisionPercent", l.OverprovisionPercent, 100, 100000)
	}
	j.treatment(s)
	return j.problems
}

func (j *judge) balancer(field string, b *Balancer) {
	if b == nil {
		return
	}
	if b.Kind != "" {
		j.choice(field+".kind", b.Kind, balancerKinds...)
	}
	j.duration(field+".slowStart", b.SlowStart, false)
	j.duration(field+".decay", b.Decay, false)
	j.numberIf(field+".panicPercent", b.PanicPercent, 0, 100)
	kind := b.Kind
	if kind == "" {
		kind = BalancerLeastRequest
	}
	if b.Choices != 0 {
		j.number(field+".choices", b.Choices, 2, 100)
		if kind != BalancerLeastRequest && kind != BalancerPeakEWMA {
			j.add(CodeBalancer, field+".choices", "remove it, or use LeastRequest or PeakEWMA", "%s makes no choice between endpoints", kind)
		}
	}
	if b.RingSize != 0 {
		j.number(field+".ringSize", b.RingSize, 1, 8<<20)
		if kind != BalancerRingHash {
			j.add(CodeBalancer, field+".ringSize", "remove it, or use RingHash", "%s has no ring", kind)
		}
	}
	if b.Decay != "" && kind != BalancerPeakEWMA {
		j.add(CodeBalancer, field+".decay", "remove it, or use PeakEWMA", "%s measures nothing", kind)
	}
}

func (j *judge) outlier(field string, o *Outlier) {
	if o == nil {
		return
	}
	for _, n := range []struct {
		name  string
		value *int32
		high  int32
	}{
		{"consecutive5xx", o.Consecutive5xx, most}, {"consecutiveGateway", o.ConsecutiveGateway, most}, {"maxEjectionPercent", o.MaxEjectionPercent, 100},
		{"failurePercent", o.FailurePercent, 100}, {"failureHosts", o.FailureHosts, most}, {"failureVolume", o.FailureVolume, most},
	} {
		j.numberIf(field+"."+n.name, n.value, 0, n.high)
	}
	j.duration(field+".interval", o.Interval, false)
	j.duration(field+".baseEjection", o.BaseEjection, false)
	j.duration(field+".maxEjection", o.MaxEjection, false)
	if m := o.MaxEjection.Time(); m > 0 && o.BaseEjection.Time() > m {
		j.add(CodeDuration, field+".baseEjection", "make it at most maxEjection", "the first ejection would be longer than the longest")
	}
	if o.LatencyPercent != 0 {
		j.number(field+".latencyPercent", o.LatencyPercent, 100, 100000)
	}
	if r := o.SuccessRate; r != nil {
		j.numberIf(field+".successRate.hosts", r.Hosts, 0, most)
		j.numberIf(field+".successRate.volume", r.Volume, 0, most)
		j.numberIf(field+".successRate.factorPerMille", r.FactorPerMille, 0, most)
	}
}

func (j *judge) activeCheck(field string, c *ActiveCheck) {
	if c == nil {
		return
	}
	if c.Type == "" {
		j.add(CodeMissing, field+".type", "write http, grpc or tcp", "the type is missing")
	} else {
		j.choice(field+".type", c.Type, "http", "grpc", "tcp")
	}
	j.length(field+".path", c.Path, 1024)
	if c.Path != "" && c.Path[0] != '/' {
		j.add(CodeURL, field+".path", "put / in front of it", "%q does not begin with /", c.Path)
	}
	j.length(field+".host", c.Host, 253)
	j.length(field+".service", c.Service, 253)
	if c.Type != "http" && (c.Path != "" || c.Host != "" || len(c.Statuses) > 0) {
		j.add(CodeHealth, field+".type", "remove path, host and statuses, or use http", "%s checks have none of them", c.Type)
	}
	if c.Type != "grpc" && c.Service != "" {
		j.add(CodeHealth, field+".service", "remove it, or use type: grpc", "%s checks have no service", c.Type)
	}
	j.codes(field+".statuses", c.Statuses, 32, 100, 599)
	j.duration(field+".interval", c.Interval, false)
	j.duration(field+".timeout", c.Timeout, false)
	j.positive(field+".successes", c.Successes, 100)
	j.positive(field+".failures", c.Failures, 100)
}

// codes checks a set of numbers.
func (j *judge) codes(field string, list []int32, limit int, low, high int32) {
	if !j.count(field, len(list), limit) {
		return
	}
	for i, n := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		j.number(at, n, low, high)
		if slices.Index(list, n) < i {
			j.add(CodeRepeated, at, "remove one", "%d is there twice", n)
		}
	}
}

func (j *judge) backendLimits(field string, l *BackendLimits) {
	if l == nil {
		return
	}
	j.positive(field+".connections", l.Connections, most)
	j.positive(field+".pending", l.Pending, most)
	j.positive(field+".requests", l.Requests, most)
	j.positive(field+".retries", l.Retries, most)
	if b := l.RetryBudget; b != nil {
		j.number(field+".retryBudget.percent", b.Percent, 1, 100)
		j.positive(field+".retryBudget.minimum", b.Minimum, most)
	}
}

func (j *judge) connections(field string, c *BackendConnections) {
	if c == nil {
		return
	}
	j.duration(field+".connectTimeout", c.ConnectTimeout, false)
	j.duration(field+".idleTimeout", c.IdleTimeout, false)
	j.positive(field+".maxRequests", c.MaxRequests, most)
	j.positive(field+".proxyProtocol", c.ProxyProtocol, 2)
}

func (j *judge) backendTLS(field string, t *BackendTLS) {
	if t == nil {
		return
	}
	j.length(field+".hostname", t.Hostname, 253)
	if t.Hostname != "" && !dnsName.MatchString(t.Hostname) {
		j.add(CodeDNSName, field+".hostname", "write a name such as db.example.com", "%q is not a DNS name", t.Hostname)
	}
	j.length(field+".ca", t.CA, 262144)
	if j.count(field+".servers", len(t.Servers), 16) {
		j.set(field+".servers", t.Servers)
		for i, s := range t.Servers {
			at := fmt.Sprintf("%s.servers[%d]", field, i)
			j.length(at, s, 2048)
			if !serverURI.MatchString(s) {
				j.add(CodeURL, at, "write it as in the certificate, such as spiffe://example.org/db", "%q is not a URI", s)
			}
		}
	}
	if t.MinVersion != "" {
		j.choice(field+".minVersion", t.MinVersion, "1.2", "1.3")
	}
	if t.Insecure && (t.CA != "" || t.Servers != nil) {
		j.add(CodeTLS, field+".insecure", "remove it", "with insecure nothing is verified, so ca and servers mean nothing")
	}
}
