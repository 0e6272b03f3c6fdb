package policy

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestRequestsAgainstOracle: the decision about a request is what the words of
// the documentation say, computed the long way round.
func TestRequestsAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		d := s.Decider()
		for range 10 {
			p, q := drawPacket(t), drawRequest(t)
			session := d.Session(p)
			got, want := session.Decide(q), oracle(s, p, q)
			if got != want {
				t.Fatalf("packet %+v\nrequest %+v\nset %+v\ngot  %+v\nwant %+v", p, q, s, got, want)
			}
			if v, steps := session.Walk(q); v != got || len(steps) == 0 {
				t.Fatalf("Walk says %+v in %d steps, Decide %+v", v, len(steps), got)
			}
			if v := s.DecideRequest(p, q); v != got {
				t.Fatalf("DecideRequest says %+v, the session %+v", v, got)
			}
			// Where packets need no proxy, no request would have another verdict.
			if v := s.Decide(p); !v.Proxy && (v.Allow != got.Allow || v.Rule != got.Rule || v.Tier != got.Tier) {
				t.Fatalf("packet %+v: %+v without looking at requests, but with them %+v\nset %+v", p, v, got, s)
			} else if v.Proxy && (v.Allow || !slices.ContainsFunc(session.Rules(), func(r Rule) bool { return len(r.Requests) > 0 })) {
				t.Fatalf("packet %+v: %+v, the session meets %+v", p, v, session.Rules())
			}
		}
	})
}

// oracle is the decision by definition: the first tier in which a rule matches
// and does not pass, else the tier's own end.
func oracle(s *Set, p Packet, q *Request) Verdict {
	walk := func(shadow bool) Verdict {
		for tier := Admin; tier < Default; tier++ {
			i := slices.IndexFunc(s.Rules, func(r Rule) bool {
				return r.Tier == tier && (shadow || !r.Audit) && oracleRule(&r, p, q)
			})
			if i >= 0 && s.Rules[i].Action != Pass {
				return Verdict{Allow: s.Rules[i].Action == Allow, Rule: s.Rules[i].ID, Tier: tier}
			}
			isolated := s.Isolated
			if isolated == "" && shadow {
				isolated = s.AuditIsolated
			}
			if i < 0 && tier == Project && isolated != "" {
				return Verdict{Rule: isolated, Tier: tier}
			}
		}
		return Verdict{Allow: s.Default.Allow, Rule: s.Default.ID, Tier: Default}
	}
	v := walk(false)
	if w := walk(true); w.Allow != v.Allow || w.Rule != v.Rule {
		v.Shadow = DefaultRule{ID: w.Rule, Allow: w.Allow}
	}
	return v
}

func oracleRule(r *Rule, p Packet, q *Request) bool {
	if p.Protocol == 58 {
		p.Protocol = ICMP
	}
	if !r.matches(peerRegion(p.PeerAddr), p) {
		return false
	}
	if len(r.Requests) == 0 {
		return true
	}
	return p.Protocol == TCP && slices.ContainsFunc(r.Requests, func(m RequestMatch) bool {
		must, may := oracleMatch(&m, q)
		return must || may && r.Action == Deny
	})
}

// oracleMatch says whether it matches whatever the unknown is, and whether it
// may match.
func oracleMatch(m *RequestMatch, q *Request) (must, may bool) {
	must, may = true, true
	also := func(a, b bool) { must, may = must && a, may && b }
	sure := func(b bool) { also(b, b) }
	path, host := string(q.Path), string(q.Host)
	service, method, slash := strings.Cut(path[1:], "/")
	sure(len(m.Methods) == 0 || slices.Contains(m.Methods, string(q.Method)))
	sure(len(m.GRPC) == 0 || q.GRPC && slash && slices.ContainsFunc(m.GRPC, func(c Call) bool {
		return (c.Service == "" || c.Service == service) && (c.Method == "" || c.Method == method)
	}))
	sure(len(m.Paths) == 0 || slices.ContainsFunc(m.Paths, func(t TextMatch) bool { return oracleText(t, path) }))
	sure(len(m.Hosts) == 0 || slices.ContainsFunc(m.Hosts, func(t TextMatch) bool { return oracleText(t, host) }))
	for _, h := range m.Headers {
		var values []string
		for _, f := range q.Fields {
			if string(f.Name) == h.Name {
				values = append(values, string(f.Value))
			}
		}
		if len(values) > 1 {
			values = append(values, strings.Join(values, ","))
		}
		n := 0
		for _, v := range values {
			if oracleText(h.TextMatch, v) {
				n++
			}
		}
		switch {
		case n > 0 && n < len(values): // some say this, some that
			also(false, true)
		case h.Not:
			sure(n == 0)
		default:
			sure(n > 0)
		}
	}
	if m.Token != nil {
		switch q.Witness.Token(m.Token) {
		case No:
			sure(false)
		case Unknown:
			also(false, true)
		case Yes:
			for _, c := range m.Token.Claims {
				sure(slices.ContainsFunc(q.Witness.Claim(m.Token, c.Name), func(v string) bool { return oracleText(c.TextMatch, v) }) != c.Not)
			}
		}
	}
	if m.External != nil && must {
		answer := q.Witness.External(m.External)
		also(answer == Yes, answer != No)
	}
	return must, may
}

func oracleText(t TextMatch, s string) bool {
	switch t.Kind {
	case Exact:
		return s == t.Value
	case Prefix:
		return t.Value == "/" || s == strings.TrimSuffix(t.Value, "/") || strings.HasPrefix(s, strings.TrimSuffix(t.Value, "/")+"/")
	case Suffix:
		return s != t.Value && strings.HasSuffix(s, t.Value)
	case Regex:
		return regexp.MustCompile(`\A(?:` + t.Value + `)\z`).MatchString(s)
	}
	return true
}

var (
	someMethods = []string{"GET", "POST"}
	somePaths   = []string{"/", "/a", "/a/b", "/ab", "/a/", "/shop.Cart/Get"}
	someHosts   = []string{"a.example", "b.a.example", "example"}
	someValues  = []string{"1", "2", "12"}
)

func drawRequestMatch(t *rapid.T) RequestMatch {
	maybe := func(what string, do func()) {
		if rapid.IntRange(0, 3).Draw(t, what) == 0 {
			do()
		}
	}
	text := func(kinds []MatchKind, values []string) TextMatch {
		return TextMatch{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Value: rapid.SampledFrom(values).Draw(t, "value")}
	}
	named := func() []NamedMatch {
		return []NamedMatch{{Name: rapid.SampledFrom([]string{"x-a", "x-b"}).Draw(t, "name"),
			TextMatch: text([]MatchKind{Exact, Present, Regex}, []string{"1", "[12]+", "1|2"}), Not: rapid.Bool().Draw(t, "not")}}
	}
	m := RequestMatch{}
	maybe("methods", func() { m.Methods = []string{rapid.SampledFrom(someMethods).Draw(t, "method")} })
	maybe("paths", func() {
		m.Paths = []TextMatch{text([]MatchKind{Exact, Prefix, Regex}, somePaths), text([]MatchKind{Regex}, []string{"/a.*", "/a|/b"})}[:rapid.IntRange(1, 2).Draw(t, "two")]
	})
	maybe("hosts", func() { m.Hosts = []TextMatch{text([]MatchKind{Exact, Suffix}, []string{"a.example", ".example"})} })
	maybe("headers", func() { m.Headers = named() })
	maybe("grpc", func() {
		m.GRPC = []Call{{Service: rapid.SampledFrom([]string{"", "shop.Cart", "x"}).Draw(t, "service"), Method: rapid.SampledFrom([]string{"", "Get"}).Draw(t, "call")}}
	})
	maybe("token", func() { m.Token = &Token{Issuer: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "issuer")} })
	if m.Token != nil {
		maybe("claims", func() { m.Token.Claims = named() })
	}
	maybe("external", func() { m.External = &External{Timeout: rapid.Uint32Range(0, 2).Draw(t, "answer")} })
	return m
}

// someWitness answers from tables.
type someWitness struct {
	token  map[string]Answer
	claims map[string][]string
}

func (w *someWitness) Token(t *Token) Answer                { return w.token[t.Issuer] }
func (w *someWitness) Claim(_ *Token, name string) []string { return w.claims[name] }
func (w *someWitness) External(e *External) Answer          { return Answer(e.Timeout) }

func drawRequest(t *rapid.T) *Request {
	pick := func(of []string) []byte { return []byte(rapid.SampledFrom(of).Draw(t, "text")) }
	r := &Request{Method: pick(someMethods), Path: pick(somePaths), Host: pick(someHosts), GRPC: rapid.Bool().Draw(t, "grpc")}
	for range rapid.IntRange(0, 3).Draw(t, "fields") {
		r.Fields = append(r.Fields, Field{pick([]string{"x-a", "x-b"}), pick(someValues)})
	}
	answer := func() Answer { return Answer(rapid.IntRange(0, 2).Draw(t, "token")) }
	w := &someWitness{token: map[string]Answer{"a": answer(), "b": answer()}, claims: map[string][]string{}}
	for range rapid.IntRange(0, 3).Draw(t, "claims") {
		name := rapid.SampledFrom([]string{"x-a", "x-b"}).Draw(t, "claim")
		w.claims[name] = append(w.claims[name], rapid.SampledFrom(someValues).Draw(t, "value"))
	}
	r.Witness = w
	return r
}

var web = Packet{Peer: 7, PeerAddr: netip.MustParseAddr("10.0.0.7"), Protocol: TCP, Port: 8080}

// about is a Set with one rule about requests in front of an end that denies or
// allows what the rule does not match.
func about(action Action, m ...RequestMatch) *Set {
	return &Set{Rules: []Rule{{ID: "it", Tier: Project, Action: action, Requests: m}}, Default: DefaultRule{ID: "end", Allow: action == Deny}}
}

// TestWhatIsNotKnown: what cannot be known is refused by rules that deny, and
// not let in by rules that allow.
func TestWhatIsNotKnown(t *testing.T) {
	role := []NamedMatch{{Name: "x-role", TextMatch: TextMatch{Value: "admin"}}}
	twice := Request{Fields: []Field{{[]byte("x-role"), []byte("guest")}, {[]byte("x-role"), []byte("admin")}}}
	same := Request{Fields: []Field{{[]byte("x-role"), []byte("admin")}, {[]byte("x-role"), []byte("admin")}}}
	not := []NamedMatch{{Name: "x-role", TextMatch: TextMatch{Value: "admin"}, Not: true}}
	list := []NamedMatch{{Name: "x-role", TextMatch: TextMatch{Value: "guest,admin"}}}
	token, get := &Token{Issuer: "https://id.example", Keys: "k"}, Request{Method: []byte("GET"), Path: slash}
	unsure := get
	unsure.Witness = &someWitness{token: map[string]Answer{token.Issuer: Unknown}}
	for name, c := range map[string]struct {
		m RequestMatch
		r Request
	}{
		"header twice":          {RequestMatch{Headers: role}, twice},
		"header twice, not":     {RequestMatch{Headers: not}, twice},
		"header twice the same": {RequestMatch{Headers: role}, same},
		"header as a list":      {RequestMatch{Headers: list}, twice},
		"token":                 {RequestMatch{Token: token}, unsure},
		"token, nobody to ask":  {RequestMatch{Token: token}, get},
		"no answer":             {RequestMatch{External: &External{Timeout: uint32(Unknown)}}, unsure},
		"nobody to ask":         {RequestMatch{External: &External{}}, get},
		"no expression":         {RequestMatch{Paths: []TextMatch{{Kind: Regex, Value: "("}}}, get},
		"no such kind":          {RequestMatch{Paths: []TextMatch{{Kind: 99}}}, get},
		"token and known parts": {RequestMatch{Methods: []string{"GET"}, Token: token}, unsure},
	} {
		for _, action := range []Action{Allow, Deny} {
			v, steps := about(action, c.m).Decider().Session(web).Walk(&c.r)
			if v.Allow || action == Deny && (v.Rule != "it" || !steps[1].Unknown) || action == Allow && v.Rule != "end" {
				t.Errorf("%s, rule to %s: %+v %+v", name, action, v, steps)
			}
		}
	}
	if v := about(Deny, RequestMatch{Methods: []string{"POST"}, Token: token}).DecideRequest(web, &unsure); !v.Allow {
		t.Errorf("a rule that does not match whatever the token is: %+v", v)
	}
}

// TestRequestsAllocateNothing: the proxy asks for every request.
func TestRequestsAllocateNothing(t *testing.T) {
	s := &Set{Isolated: "isolated"}
	for _, p := range []string{"/x", "/y", "/cart"} {
		s.Rules = append(s.Rules, Rule{ID: RuleID(p), Tier: Project, Action: Allow, Peers: []Peer{{Identities: []Identity{7}}}, Requests: []RequestMatch{
			{Methods: []string{"GET"}, Paths: []TextMatch{{Kind: Prefix, Value: p}}, Hosts: []TextMatch{{Kind: Suffix, Value: ".example"}},
				Headers: []NamedMatch{{Name: "x-role", TextMatch: TextMatch{Kind: Regex, Value: "ad.*"}}}}}})
	}
	r := &Request{Method: []byte("GET"), Path: []byte("/cart/7"), Host: []byte("shop.example"), Fields: []Field{{[]byte("x-role"), []byte("admin")}}}
	session := s.Decider().Session(web)
	if n := testing.AllocsPerRun(1000, func() {
		if v := session.Decide(r); !v.Allow || v.Rule != "/cart" {
			t.Fatalf("%+v", v)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a request", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	s := about(Allow, RequestMatch{Methods: []string{"GET"}, Paths: []TextMatch{{Kind: Prefix, Value: "/cart"}}})
	session, r := s.Decider().Session(web), &Request{Method: []byte("GET"), Path: []byte("/cart/7"), Host: []byte("shop.example")}
	for b.Loop() {
		session.Decide(r)
	}
}
