package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// inlineKeys begins the names of JWK sets that are in Policies themselves.
const inlineKeys = "inline/"

// parsedRequests is the part of a rule about requests.
type parsedRequests struct {
	// matches: any of them; External is still to be found. None: the rule is
	// about packets.
	matches  []policy.RequestMatch
	external string // name of an Authorizer
	// broken: an expression cannot be read, so the closed side counts.
	broken bool
}

// parseRequests reads what a rule says of requests. keys takes the JWK sets that
// it needs; those that have to be fetched have no JSON.
func parseRequests(r *v1alpha1.Rule, keys map[string]l7.KeySet) parsedRequests {
	out := parsedRequests{external: r.External}
	if !r.AboutRequests() {
		return out
	}
	for i := range r.HTTP {
		m := &r.HTTP[i]
		match := policy.RequestMatch{Methods: m.Methods, Headers: out.named(m.Headers, strings.ToLower)}
		for j := range m.Paths {
			match.Paths = append(match.Paths, out.path(&m.Paths[j]))
		}
		for _, h := range m.Hosts {
			match.Hosts = append(match.Hosts, hostMatch(h))
		}
		out.matches = append(out.matches, match)
	}
	for i := range r.GRPC {
		g := &r.GRPC[i]
		out.matches = append(out.matches, policy.RequestMatch{GRPC: []policy.Call{{Service: g.Service, Method: g.Method}}, Headers: out.named(g.Headers, strings.ToLower)})
	}
	if len(out.matches) == 0 {
		out.matches = []policy.RequestMatch{{}}
	}
	if t := r.JWT; t != nil {
		token := &policy.Token{Issuer: t.Issuer, Audiences: t.Audiences, Keys: t.JWKSURI, Claims: out.named(t.Claims, strings.Clone)}
		set := l7.KeySet{URI: t.JWKSURI}
		if t.JWKSURI == "" {
			sum := sha256.Sum256([]byte(t.JWKS))
			token.Keys = inlineKeys + hex.EncodeToString(sum[:])
			set.URI = token.Keys
			if v1alpha1.IsJWKS(t.JWKS) {
				set.JSON = t.JWKS
			}
		}
		keys[set.URI] = set
		for i := range out.matches {
			out.matches[i].Token = token
		}
	}
	return out
}

func (out *parsedRequests) path(p *v1alpha1.PathMatch) policy.TextMatch {
	switch {
	case p.Prefix != "":
		return policy.TextMatch{Kind: policy.Prefix, Value: p.Prefix}
	case p.Regex != "":
		return out.pattern(p.Regex)
	}
	return policy.TextMatch{Value: p.Exact}
}

func (out *parsedRequests) pattern(s string) policy.TextMatch {
	if _, err := regexp.Compile("^(?:" + s + ")$"); err != nil {
		out.broken = true
	}
	return policy.TextMatch{Kind: policy.Regex, Value: s}
}

func hostMatch(h string) policy.TextMatch {
	if below, wild := strings.CutPrefix(h, "*"); wild {
		return policy.TextMatch{Kind: policy.Suffix, Value: below}
	}
	return policy.TextMatch{Value: h}
}

func (out *parsedRequests) named(in []v1alpha1.NamedMatch, name func(string) string) []policy.NamedMatch {
	var all []policy.NamedMatch
	for i := range in {
		m := &in[i]
		match := policy.NamedMatch{Name: name(m.Name), Not: m.Not}
		switch {
		case m.Regex != "":
			match.TextMatch = out.pattern(m.Regex)
		case m.Exact != nil:
			match.TextMatch = policy.TextMatch{Value: *m.Exact}
		default:
			match.TextMatch = policy.TextMatch{Kind: policy.Present}
		}
		all = append(all, match)
	}
	return all
}

// requests of a rule as the Network sees them. A miss says why none can match.
func (d *jointDraft) requests(subject *project, r *parsedRule) ([]policy.RequestMatch, miss) {
	q := &r.requests
	switch {
	case len(q.matches) == 0:
		return nil, ""
	case q.broken && r.action == policy.Deny:
		return []policy.RequestMatch{{}}, "" // every request
	case q.broken:
		return nil, "one of its regular expressions is not valid"
	case len(r.ports) > 0 && !slices.ContainsFunc(r.ports, isTCP):
		return nil, "requests travel in TCP, and it has no TCP port"
	case q.external == "":
		return q.matches, ""
	}
	external, missed := d.authorizer(subject, q.external)
	if missed != "" {
		return nil, missed
	}
	out := slices.Clone(q.matches)
	for i := range out {
		out[i].External = external
	}
	return out, ""
}

func isTCP(p policy.PortRange) bool { return p.Protocol == policy.TCP }

// authorizer finds the service that a rule asks, and makes its Cluster.
func (d *jointDraft) authorizer(subject *project, name string) (*policy.External, miss) {
	i := slices.IndexFunc(subject.authorizers, func(a v1alpha1.Authorizer) bool { return a.Name == name })
	if i < 0 {
		return nil, miss("Domain " + subject.domain + " has no authorizer " + name)
	}
	a := &subject.authorizers[i]
	object := a.Project + "/" + a.Service
	if !slices.ContainsFunc(d.facts.projects, func(p *project) bool { return p.name == a.Project && p.domain == subject.domain }) {
		return nil, miss("authorizer " + name + " is Service " + object + ", whose project has nothing to do with Network " + d.facts.base.facts.key.String())
	}
	var at []snapshot.ServiceKey
	find := func(rows []snapshot.Service) {
		for _, s := range rows {
			if s.Project == a.Project && s.Name == a.Service && s.Protocol == policy.TCP && int32(s.Port) == a.Port && !s.Floating {
				at = append(at, s.ServiceKey)
			}
		}
	}
	find(d.rows)
	for _, h := range d.hosts {
		find(h.services)
	}
	slices.SortFunc(at, snapshot.ServiceKey.Compare)
	if at = slices.Compact(at); len(at) == 0 {
		return nil, miss(fmt.Sprintf("authorizer %s is TCP port %d of Service %s, which has no address in Network %s", name, a.Port, object, d.facts.base.facts.key))
	}
	c := snapshot.Cluster{Service: at[0], Asked: true, Cluster: l7.Cluster{
		Name: fmt.Sprintf("authorizer/%d/%s/%s", d.facts.base.row.VNI, subject.domain, name), Protocol: l7.HTTP2,
	}}
	if len(at) > 1 {
		c.Second = at[1]
	}
	timeout := a.TimeoutMilliseconds
	if timeout <= 0 {
		timeout = 200
	}
	c.Connect = l7.Duration(time.Duration(timeout) * time.Millisecond)
	set(&d.asked, c.Name, c)
	return &policy.External{Cluster: c.Name, Timeout: uint32(timeout), Status: uint16(a.Status), Open: a.OnFailure == v1alpha1.OnFailureAllow}, ""
}
