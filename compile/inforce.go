package compile

import (
	"cmp"
	"crypto/x509"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/l7"
)

// policies that are attached to one target, sorted by age. Never changed.
type policies struct {
	of       targetKey
	backends []*backendPolicy
	faults   []*faultPolicy
}

// backendPolicy is a BackendPolicy in our words.
type backendPolicy struct {
	*v1alpha1.BackendPolicy
	endpoints *l7.Cluster // what it says of endpoints; nil: nothing
	requests  *l7.Rule    // what it says of requests; nil: nothing
	// invalid is why something of it is not kept; closed: so nobody may be sent to
	// what it is attached to.
	invalid *flaw
	closed  bool
}

// faultPolicy is a FaultPolicy in our words.
type faultPolicy struct {
	*v1alpha1.FaultPolicy
	fault   *l7.Fault // nil: it is not valid
	invalid *flaw
}

func (p *backendPolicy) targets() []v1alpha1.PolicyTarget { return p.Spec.TargetRefs }
func (p *faultPolicy) targets() []v1alpha1.PolicyTarget   { return p.Spec.TargetRefs }

// attached is a policy of either kind.
type attached interface {
	comparable
	metav1.Object
	targets() []v1alpha1.PolicyTarget
}

// compareAge orders objects of one kind by age, then by project and name.
func compareAge[T metav1.Object](a, b T) int {
	x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return cmp.Or(x.Compare(y.Time), cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}

// inForce are the policies that hold at one port or rule, the nearest first.
type inForce struct {
	endpoints, requests []*backendPolicy
	faults              []*faultPolicy
	// closed is the policy because of which nobody may be sent there.
	closed *backendPolicy
}

// ofPort finds those that hold at a port of a Service: of those that name it the
// oldest, then of those that mean all of it.
func (p *policies) ofPort(port *v1alpha1.ServicePort) inForce {
	return p.find(meansPort(port))
}

// meansPort says of a target whether it names the port.
func meansPort(p *v1alpha1.ServicePort) func(*v1alpha1.PolicyTarget) bool {
	return func(t *v1alpha1.PolicyTarget) bool {
		return t.Port == p.Port || t.SectionName != "" && t.SectionName == p.Name
	}
}

// ofRule finds those that hold at a rule of a route.
func (p *policies) ofRule(name string) inForce {
	return p.find(func(t *v1alpha1.PolicyTarget) bool { return t.SectionName != "" && t.SectionName == name })
}

func (p *policies) find(section func(*v1alpha1.PolicyTarget) bool) (out inForce) {
	if p == nil {
		return out
	}
	for _, b := range nearest(p.of, p.backends, section) {
		if b.endpoints != nil {
			out.endpoints = append(out.endpoints, b)
		}
		if b.requests != nil {
			out.requests = append(out.requests, b)
		}
		if b.closed && out.closed == nil {
			out.closed = b
		}
	}
	for _, f := range nearest(p.of, p.faults, section) {
		if f.fault != nil {
			out.faults = append(out.faults, f)
		}
	}
	return out
}

// nearest are the oldest that means the section and the oldest that means all,
// of policies of one target, which are sorted by age.
func nearest[P attached](of targetKey, all []P, section func(*v1alpha1.PolicyTarget) bool) []P {
	var out []P
	for _, means := range []func(*v1alpha1.PolicyTarget) bool{section, entire} {
		if i := slices.IndexFunc(all, func(p P) bool { return aims(p, of, means) }); i >= 0 && !slices.Contains(out, all[i]) {
			out = append(out, all[i])
		}
	}
	return out
}

// aims says whether a policy is attached to a part of a target.
func aims[P attached](p P, of targetKey, means func(*v1alpha1.PolicyTarget) bool) bool {
	return slices.ContainsFunc(p.targets(), func(t v1alpha1.PolicyTarget) bool { return t.Kind == of.kind && t.Name == of.key.Name && means(&t) })
}

func entire(t *v1alpha1.PolicyTarget) bool { return t.SectionName == "" && t.Port == 0 }

// namePorts says whether some of them are for one port.
func (p *policies) namePorts() bool {
	if p == nil {
		return false
	}
	part := func(t *v1alpha1.PolicyTarget) bool { return !entire(t) }
	return slices.ContainsFunc(p.backends, func(b *backendPolicy) bool { return aims(b, p.of, part) }) || slices.ContainsFunc(p.faults, func(f *faultPolicy) bool { return aims(f, p.of, part) })
}

// why names one of them; "": there is none.
func (f *inForce) why() string {
	switch {
	case len(f.requests) > 0:
		return backendPolicyName(f.requests[0])
	case len(f.faults) > 0:
		return faultPolicyName(f.faults[0])
	case len(f.endpoints) > 0:
		return backendPolicyName(f.endpoints[0])
	case f.closed != nil:
		return backendPolicyName(f.closed)
	}
	return ""
}

// apply gives a rule what it does not say itself.
func (f *inForce) apply(r *l7.Rule) {
	for _, b := range f.requests {
		q := b.requests
		if r.Retry == nil {
			r.Retry = q.Retry
		}
		if r.Hedge == nil {
			r.Hedge = q.Hedge
		}
		if r.Timeouts == (l7.Timeouts{}) {
			r.Timeouts = q.Timeouts
		}
		if r.RateLimits == nil {
			r.RateLimits = q.RateLimits
		}
		if r.Hash == nil {
			r.Hash = q.Hash
		}
		if r.Subset == nil {
			r.Subset = q.Subset
		}
	}
	if len(f.faults) > 0 && r.Fault == nil {
		r.Fault = f.faults[0].fault
	}
}

// tls says whether endpoints that are not in the mesh are spoken to in TLS.
func (f *inForce) tls() bool {
	return slices.ContainsFunc(f.endpoints, func(b *backendPolicy) bool { return b.endpoints.TLS != nil })
}

// settle gives a cluster what the policies say of endpoints, each part as the
// nearest says it.
func (f *inForce) settle(c *l7.Cluster) {
	balancer, limits, connections := false, false, false
	for _, b := range f.endpoints {
		s, e := &b.Spec, b.endpoints
		if s.Balancer != nil && !balancer {
			balancer, c.Balancer = true, e.Balancer
		}
		if s.Limits != nil && !limits {
			limits, c.Circuit, c.Budget = true, e.Circuit, e.Budget
		}
		if s.Connections != nil && !connections {
			connections, c.Connect, c.Idle, c.Requests, c.ProxyProtocol = true, e.Connect, e.Idle, e.Requests, e.ProxyProtocol
		}
		if c.Outlier == nil {
			c.Outlier = e.Outlier
		}
		if c.TLS == nil {
			c.TLS = e.TLS
		}
		if c.Locality == nil {
			c.Locality = e.Locality
		}
	}
}

// check is what nodes ask the endpoints of a port that speaks app; nil: nothing.
func (f *inForce) check(app l7.Protocol) *l7.Check {
	for _, b := range f.endpoints {
		switch c := b.endpoints.Check; {
		case c == nil:
		case c.Kind == "grpc" && app != l7.HTTP2: // the policy has been told
			return nil
		default:
			return c
		}
	}
	return nil
}

func backendPolicyName(p *backendPolicy) string { return "BackendPolicy " + p.Namespace + "/" + p.Name }
func faultPolicyName(p *faultPolicy) string     { return "FaultPolicy " + p.Namespace + "/" + p.Name }

// readBackendPolicy puts a BackendPolicy into our words.
func readBackendPolicy(o *v1alpha1.BackendPolicy) *backendPolicy {
	p := &backendPolicy{BackendPolicy: o}
	wrong := func(problems []l7.Problem, of string) bool {
		if len(problems) > 0 && p.invalid == nil {
			p.invalid = &flaw{condition: conditionAccepted, reason: reasonInvalid, field: "spec", text: of + ": " + problems[0].Reason, fix: problems[0].Fix}
		}
		return len(problems) > 0
	}
	if c := endpointWords(&o.Spec); c != nil {
		only := l7.Cluster{Name: "x", Protocol: l7.HTTP2, TLS: c.TLS}
		switch t := c.TLS; {
		case t != nil && t.CA != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(t.CA)):
			p.closed, p.invalid = true, &flaw{condition: conditionAccepted, reason: reasonInvalid, field: "spec.tls.ca", text: "there is no certificate in it", fix: "write the PEM text of the bundle"}
		case wrong(only.Validate(), "tls"):
			p.closed = true
		default:
			only = *c
			only.Name, only.Protocol, only.Locality = "x", l7.HTTP2, nil
			if p.endpoints = c; wrong(only.Validate(), "endpoints") {
				p.endpoints = &l7.Cluster{TLS: c.TLS}
				if c.TLS == nil {
					p.endpoints = nil
				}
			}
		}
	}
	if r := requestWords(&o.Spec); r != nil {
		whole := l7.Route{Name: "x", Rules: []l7.Rule{*r}}
		if !wrong(whole.Validate(), "requests") {
			p.requests = r
		}
	}
	return p
}

// readFaultPolicy puts a FaultPolicy into our words.
func readFaultPolicy(o *v1alpha1.FaultPolicy) *faultPolicy {
	f := &l7.Fault{}
	if d := o.Spec.Delay; d != nil {
		f.Delay, f.DelayPercent = l7.Duration(d.Duration.Time()), percentOf(d.Share)
	}
	if a := o.Spec.Abort; a != nil {
		f.Abort, f.AbortGRPC, f.AbortPercent = int(a.Status), int(a.GRPCStatus), percentOf(a.Share)
	}
	for _, h := range o.Spec.Headers {
		f.Headers = valueMatch(f.Headers, h.Type, h.Name, h.Value, true)
	}
	p := &faultPolicy{FaultPolicy: o, fault: f}
	whole := l7.Route{Name: "x", Rules: []l7.Rule{{Fault: f}}}
	if bad := whole.Validate(); len(bad) > 0 {
		p.fault, p.invalid = nil, &flaw{condition: conditionAccepted, reason: reasonInvalid, field: "spec", text: bad[0].Reason, fix: bad[0].Fix}
	}
	return p
}

func percentOf(s v1alpha1.Share) float64 {
	if s.PerMille != 0 {
		return float64(s.PerMille) / 10
	}
	return float64(s.Percent)
}
