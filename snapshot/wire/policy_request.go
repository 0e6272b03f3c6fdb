package wire

import (
	"regexp"
	"strings"

	"moire.dev/moire/snapshot/policy"
)

func fromRequest(m *policy.RequestMatch) *RequestMatch {
	out := &RequestMatch{Methods: m.Methods, Paths: fromTexts(m.Paths), Hosts: fromTexts(m.Hosts), Headers: fromNamed(m.Headers)}
	for _, c := range m.GRPC {
		out.Grpc = append(out.Grpc, &Call{Service: c.Service, Method: c.Method})
	}
	if t := m.Token; t != nil {
		out.Token = &Token{Issuer: t.Issuer, Audiences: t.Audiences, Keys: t.Keys, Claims: fromNamed(t.Claims)}
	}
	if e := m.External; e != nil {
		out.External = &Asked{Cluster: e.Cluster, Timeout: e.Timeout, Status: uint32(e.Status), Open: e.Open}
	}
	return out
}

func fromText(m policy.TextMatch) *TextMatch {
	return &TextMatch{Kind: uint32(m.Kind), Value: m.Value}
}

func fromTexts(in []policy.TextMatch) []*TextMatch {
	var out []*TextMatch
	for _, m := range in {
		out = append(out, fromText(m))
	}
	return out
}

func fromNamed(in []policy.NamedMatch) []*NamedMatch {
	var out []*NamedMatch
	for _, m := range in {
		out = append(out, &NamedMatch{Name: m.Name, Match: fromText(m.TextMatch), Not: m.Not})
	}
	return out
}

// Which kinds of comparison each part of a request has.
var (
	pathKinds  = []policy.MatchKind{policy.Exact, policy.Prefix, policy.Regex}
	hostKinds  = []policy.MatchKind{policy.Exact, policy.Suffix}
	namedKinds = []policy.MatchKind{policy.Exact, policy.Present, policy.Regex}
)

func (c *check) requestMatch(in *RequestMatch, action policy.Action) policy.RequestMatch {
	out := policy.RequestMatch{
		Methods: c.texts("rules.requests.methods", in.GetMethods()),
		Paths:   c.matches("rules.requests.paths", in.GetPaths(), pathKinds), Hosts: c.matches("rules.requests.hosts", in.GetHosts(), hostKinds),
		Headers: c.named("rules.requests.headers", in.GetHeaders()),
	}
	for _, h := range out.Headers {
		if h.Name != strings.ToLower(h.Name) {
			c.failf("rules.requests.headers", "%s is not in lower case, and no header is compared with it", h.Name)
		}
	}
	if !c.count("rules.requests.grpc", len(in.GetGrpc()), maxItems) {
		return out
	}
	for _, g := range in.GetGrpc() {
		out.GRPC = append(out.GRPC, policy.Call{Service: c.text("rules.requests.grpc.service", g.GetService(), maxRuleID), Method: c.text("rules.requests.grpc.method", g.GetMethod(), maxRuleID)})
	}
	if t := in.GetToken(); t != nil {
		out.Token = &policy.Token{
			Issuer: c.text("rules.requests.token.issuer", t.GetIssuer(), maxRuleID), Audiences: c.texts("rules.requests.token.audiences", t.GetAudiences()),
			Keys: c.text("rules.requests.token.keys", t.GetKeys(), maxRuleID), Claims: c.named("rules.requests.token.claims", t.GetClaims()),
		}
		if out.Token.Issuer == "" || out.Token.Keys == "" {
			c.failf("rules.requests.token", "without issuer or keys any token would do")
		}
	}
	if e := in.GetExternal(); e != nil {
		out.External = &policy.External{Cluster: c.text("rules.requests.external.cluster", e.GetCluster(), maxCluster), Timeout: e.GetTimeout(),
			Status: c.uint16("rules.requests.external.status", e.GetStatus()), Open: e.GetOpen()}
		switch {
		case out.External.Cluster == "":
			c.failf("rules.requests.external.cluster", "empty")
		case action != policy.Allow:
			c.failf("rules.requests.external", "set in a rule that does not allow")
		case out.External.Status != 0 && (out.External.Status < 400 || out.External.Status > 599):
			c.failf("rules.requests.external.status", "%d is no status of an error; there are 400 to 599", out.External.Status)
		}
	}
	return out
}

func (c *check) match(field string, in *TextMatch, kinds []policy.MatchKind) policy.TextMatch {
	out := policy.TextMatch{Kind: policy.MatchKind(in.GetKind()), Value: c.text(field+".value", in.GetValue(), maxText)}
	for _, k := range kinds {
		if uint32(k) != in.GetKind() {
			continue
		}
		if k == policy.Regex {
			if _, err := regexp.Compile("^(?:" + out.Value + ")$"); err != nil {
				c.failf(field+".value", "%v", err)
			}
		}
		return out
	}
	c.failf(field+".kind", "%d is none that there is here", in.GetKind())
	return policy.TextMatch{}
}

func (c *check) matches(field string, in []*TextMatch, kinds []policy.MatchKind) []policy.TextMatch {
	if !c.count(field, len(in), maxItems) {
		return nil
	}
	var out []policy.TextMatch
	for _, m := range in {
		out = append(out, c.match(field, m, kinds))
	}
	return out
}

func (c *check) named(field string, in []*NamedMatch) []policy.NamedMatch {
	if !c.count(field, len(in), maxItems) {
		return nil
	}
	var out []policy.NamedMatch
	for _, m := range in {
		out = append(out, policy.NamedMatch{Name: c.name(field+".name", m.GetName()), TextMatch: c.match(field, m.GetMatch(), namedKinds), Not: m.GetNot()})
	}
	return out
}
