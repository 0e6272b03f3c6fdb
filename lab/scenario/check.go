package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"moire.dev/moire/explain"
	"moire.dev/moire/snapshot/policy"
)

func parseCheck(w []string) (Check, error) {
	var c Check
	if w[0] == "problem" {
		if len(w) != 4 {
			return c, fmt.Errorf("write problem CODE KIND [PROJECT/]NAME")
		}
		c.Problem, c.Object = w[1], w[2]+" "+w[3]
		return c, nil
	}
	if len(w) < 5 {
		return c, fmt.Errorf("write FROM -> TO PROTOCOL[/PORT] allow|deny|depends|unattached")
	}
	c.From, c.To, c.Verdict = w[0], w[2], w[4]
	var port string
	c.Protocol, port, _ = strings.Cut(w[3], "/")
	if !slices.Contains([]string{"tcp", "udp", "sctp", "icmp"}, c.Protocol) {
		return c, fmt.Errorf("%q is no protocol; write tcp, udp, sctp or icmp", c.Protocol)
	}
	if c.Protocol != "icmp" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return c, fmt.Errorf("%q is no port", port)
		}
		c.Port = uint16(n)
	}
	rest := w[5:]
	if len(w) > 6 && strings.HasPrefix(w[5], "/") && c.Protocol == "tcp" {
		r, err := explain.ParseRequest(w[4] + " " + w[5])
		if err != nil {
			return c, err
		}
		c.Request, c.Verdict, rest = r, w[6], w[7:]
	}
	if !slices.Contains([]string{Allow, Deny, Depends, Proxy, Unattached}, c.Verdict) {
		return c, fmt.Errorf("%q is no verdict; write allow, deny, depends, proxy or unattached", c.Verdict)
	}
	for _, o := range rest {
		if err := c.option(o); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *Check) option(o string) error {
	key, value, _ := strings.Cut(o, "=")
	switch key {
	case "rule":
		c.Rule = policy.RuleID(value)
	case "egress":
		c.Egress = policy.RuleID(value)
	case "ingress":
		c.Ingress = policy.RuleID(value)
	case "network":
		c.Network = value
	case "ipv6":
		c.IPv6 = true
	case "service":
		c.Service = value
	case "backend":
		c.Backends = strings.Split(value, ",")
		slices.Sort(c.Backends)
	case "via":
		for _, function := range strings.Split(value, ",") {
			instances := strings.Split(function, "|")
			slices.Sort(instances)
			c.Via = append(c.Via, instances)
		}
	case "as":
		c.As = value
	case "at":
		c.At = value
	case "shadow":
		verdict, rule, _ := strings.Cut(value, ":")
		if verdict != Allow && verdict != Deny {
			return fmt.Errorf("%q is no shadow verdict; write shadow=allow or shadow=deny", value)
		}
		c.Shadow, c.ShadowRule = verdict, policy.RuleID(rule)
	default:
		return c.requestOption(key, value)
	}
	return nil
}

// requestOption is an option that only requests have.
func (c *Check) requestOption(key, value string) error {
	if c.Request == nil {
		return fmt.Errorf("%q is no option of a check without a request", key)
	}
	name, of, _ := strings.Cut(value, ":")
	switch key {
	case "host":
		c.Request.Host = value
	case "header":
		return c.Request.Add([]string{value}, nil, c.Request.External)
	case "claim":
		return c.Request.Add(nil, []string{name + "=" + of}, c.Request.External)
	case "external":
		return c.Request.Add(nil, nil, value)
	case "route":
		c.Route = value
	case "status":
		n, err := strconv.Atoi(value)
		c.Status = n
		return err
	default:
		return fmt.Errorf("%q is no option of a check", key)
	}
	return nil
}

// Seen is what a Runner observed, for Compare.
type Seen struct {
	Verdict string // Allow, Deny or Unattached
	// Rule that decided a denial. On allow Egress and Ingress count.
	Rule, Egress, Ingress policy.RuleID
	Shadow                string // "", Allow or Deny
	ShadowRule            policy.RuleID
	// Whole: every way was looked at, so all that a hash may choose is below;
	// else what it chose this time. Empty: not known.
	Whole    bool
	Service  string
	Backends []string
	Via      [][]string
	As, At   string
	Route    string
	Status   int
}

// Compare says how what was seen differs from what was expected; nil when it
// does not.
func (c *Check) Compare(s Seen) error {
	var wrong []string
	differs := func(what string, got, want any) {
		wrong = append(wrong, fmt.Sprintf("%s is %v, want %v", what, got, want))
	}
	if s.Verdict != c.Verdict && (s.Whole || c.Verdict != Depends || s.Verdict == Unattached) {
		differs("verdict", s.Verdict, c.Verdict)
	}
	if c.Rule != "" {
		got := []policy.RuleID{s.Rule}
		if s.Verdict == Allow {
			got = []policy.RuleID{s.Egress, s.Ingress}
		}
		if !slices.Contains(got, c.Rule) {
			differs("rule", got, c.Rule)
		}
	}
	if c.Egress != "" && s.Egress != c.Egress {
		differs("egress rule", s.Egress, c.Egress)
	}
	if c.Ingress != "" && s.Ingress != c.Ingress {
		differs("ingress rule", s.Ingress, c.Ingress)
	}
	if s.Shadow != c.Shadow {
		differs("shadow verdict", strconv.Quote(s.Shadow), strconv.Quote(c.Shadow))
	}
	if c.ShadowRule != "" && s.ShadowRule != c.ShadowRule {
		differs("shadow rule", s.ShadowRule, c.ShadowRule)
	}
	for _, x := range []struct{ what, got, want string }{{"Service", s.Service, c.Service}, {"source there", s.As, c.As}, {"destination there", s.At, c.At}, {"route", s.Route, c.Route}} {
		if x.want != "" && x.got != x.want && (s.Whole || x.got != "") {
			differs(x.what, strconv.Quote(x.got), x.want)
		}
	}
	if c.Backends != nil && !s.among(s.Backends, c.Backends) {
		differs("backend", s.Backends, c.Backends)
	}
	if c.Via != nil && (s.Whole || s.Via != nil) && !slices.EqualFunc(s.Via, c.Via, s.among) {
		differs("way", s.Via, c.Via)
	}
	if c.Status != 0 && s.Status != c.Status {
		differs("status", s.Status, c.Status)
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("line %d: %s: %s", c.Line, c.Text, strings.Join(wrong, "; "))
}

// among: what was seen is all that is wanted or, where not every way was
// looked at, a part of it.
func (s *Seen) among(seen, want []string) bool {
	if s.Whole {
		return slices.Equal(seen, want)
	}
	return !slices.ContainsFunc(seen, func(x string) bool { return !slices.Contains(want, x) })
}
