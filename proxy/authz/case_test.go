package authz

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// tokens is a Set with one rule about tokens of the issuer.
func tokens(action policy.Action, claims ...policy.NamedMatch) *policy.Set {
	return &policy.Set{Rules: []policy.Rule{{ID: "policy/shop/cart/ingress/token", Tier: policy.Project, Action: action,
		Requests: []policy.RequestMatch{{Token: &policy.Token{Issuer: issuer, Audiences: []string{"other", "shop"}, Keys: uri, Claims: claims}}}}},
		Isolated: "isolated/shop/cart/ingress"}
}

func mustKeys(t testing.TB, until int64) *Keys {
	t.Helper()
	k, err := NewKeys([]l7.KeySet{{URI: uri, JSON: all(), Until: until}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func role(is string) policy.NamedMatch {
	return policy.NamedMatch{Name: "role", TextMatch: policy.TextMatch{Kind: policy.Exact, Value: is}}
}

func TestTokensInRequests(t *testing.T) {
	es := signers()["ec-ES256"]
	keys := mustKeys(t, now+1000)
	admin, user := es.sign(payload(`,"role":["admin","user"]`), nil), es.sign(payload(`,"role":"user"`), nil)
	foreign := es.sign(strings.Replace(payload(""), issuer, "https://other.example", 1), nil)
	guest := es.sign(strings.Replace(payload(`,"role":"admin"`), `"shop"`, `["guest"]`, 1), nil)
	bad := admin[:len(admin)-8] + "AAAAAAAA"
	old := es.sign(fmt.Sprintf(`{"iss":%q,"aud":"shop","role":"admin","exp":%d}`, issuer, now-100), nil)
	for name, c := range map[string]struct {
		fields []string
		keys   *Keys
		// What a rule that allows the role admin says, and one that denies it.
		allows, denies bool
		status         int
		challenge      string
	}{
		"admin":             {fields: []string{"authorization: Bearer " + admin}, allows: true, denies: true},
		"any case":          {fields: []string{"authorization: bEARER   " + admin}, allows: true, denies: true},
		"user":              {fields: []string{"authorization: Bearer " + user}, status: 403},
		"none":              {status: 401, challenge: "Bearer"},
		"basic":             {fields: []string{"authorization: Basic eA=="}, status: 401, challenge: "Bearer"},
		"empty":             {fields: []string{"authorization: Bearer "}, status: 401, challenge: "Bearer"},
		"cookie":            {fields: []string{"cookie: access_token=" + admin}, status: 401, challenge: "Bearer"},
		"two":               {fields: []string{"authorization: Bearer " + admin, "authorization: Bearer " + admin}, denies: true, status: 401, challenge: "more than one"},
		"two schemes":       {fields: []string{"authorization: Basic eA==", "authorization: Bearer " + admin}, denies: true, status: 401, challenge: "more than one"},
		"a list":            {fields: []string{"authorization: Bearer " + admin + ", Basic eA=="}, denies: true, status: 401, challenge: `Bearer error="invalid_token"`},
		"another issuer":    {fields: []string{"authorization: Bearer " + foreign}, status: 401, challenge: "another issuer"},
		"another audience":  {fields: []string{"authorization: Bearer " + guest}, status: 403},
		"forged":            {fields: []string{"authorization: Bearer " + bad}, denies: true, status: 401, challenge: "signature"},
		"ended":             {fields: []string{"authorization: Bearer " + old}, denies: true, status: 401, challenge: "has ended"},
		"no keys":           {fields: []string{"authorization: Bearer " + admin}, keys: &Keys{}, denies: true, status: 503},
		"keys are too old":  {fields: []string{"authorization: Bearer " + admin}, keys: mustKeys(t, now), denies: true, status: 503},
		"no token, no keys": {keys: &Keys{}, status: 401, challenge: "Bearer"},
	} {
		for _, action := range []policy.Action{policy.Allow, policy.Deny} {
			set := tokens(action, role("admin"))
			if action == policy.Deny {
				set.Isolated, set.Default = "", policy.DefaultRule{ID: "default/shop/front/open", Allow: true}
			}
			k := aCase(head("GET /", c.fields...), &holder{})
			if k.Keys = keys; c.keys != nil {
				k.Keys = c.keys
			}
			s := set.Decider().Session(packet)
			want := c.allows
			if action == policy.Deny {
				want = !c.denies
			}
			for range 2 { // the second time from memory
				v := k.Decide(s)
				if v.Allow != want {
					t.Errorf("%s, rule to %s: %+v", name, action, v)
				}
				if v.Allow || action == policy.Deny {
					continue
				}
				answer := &message.Head{}
				d := k.Denial(s, v, answer)
				told := strings.Join(lines(answer), "")
				if d.Status != c.status || (c.challenge == "") != (told == "") || !strings.Contains(told, c.challenge) {
					t.Errorf("%s: %d %s", name, d.Status, told)
				}
			}
		}
	}
}

// TestBelievedAndDenied: who is known, and may not, is not asked who it is.
func TestBelievedAndDenied(t *testing.T) {
	set := tokens(policy.Allow, role("admin"))
	set.Rules[0].Requests = append([]policy.RequestMatch{{Token: &policy.Token{Issuer: "https://other.example", Keys: uri}}}, set.Rules[0].Requests...)
	k := aCase(head("GET /", "authorization: Bearer "+signers()["ed"].sign(payload(""), nil)), &holder{})
	k.Keys = mustKeys(t, 0)
	s := set.Decider().Session(packet)
	if d := k.Denial(s, k.Decide(s), &message.Head{}); d.Status != 403 {
		t.Errorf("%+v", d)
	}
}

// TestMemory: a token is verified once, until its keys change or it ends.
func TestMemory(t *testing.T) {
	es := signers()["ec-ES256"]
	keys := mustKeys(t, 0)
	h := &holder{}
	k := aCase(head("GET /", "authorization: Bearer "+es.sign(payload(`,"role":"admin"`), nil)), h)
	s := tokens(policy.Allow, role("admin")).Decider().Session(packet)
	decide := func(keys *Keys, at int64) bool {
		k.Keys, k.Now = keys, at
		return k.Decide(s).Allow
	}
	for range 3 {
		if !decide(keys, now) || h.apart != 1 {
			t.Fatalf("verified %d times", h.apart)
		}
	}
	same, err := NewKeys([]l7.KeySet{{URI: uri, JSON: keys.sets[uri].json, Until: now + 5000}}, keys)
	if err != nil {
		t.Fatal(err)
	}
	if !decide(same, now) || h.apart != 1 {
		t.Errorf("the same keys: verified %d times", h.apart)
	}
	if decide(same, now+600+leeway) {
		t.Error("what was verified is good for ever")
	}
	fewer, err := NewKeys([]l7.KeySet{{URI: uri, JSON: keySet(signers()["ed"].public(""))}}, same)
	if err != nil {
		t.Fatal(err)
	}
	if decide(fewer, now) || h.apart != 2 {
		t.Errorf("a key that is gone is believed, or was not asked for: %d", h.apart)
	}
	h.busy = true
	k.Memory = &Memory{}
	if decide(keys, now) {
		t.Error("a token that was not verified is believed")
	}
	if h.busy = false; !decide(keys, now) {
		t.Error("that it was too busy is remembered")
	}
}

// TestMemoryIsBounded: neither honest tokens nor forged ones grow it without end,
// and forged ones push out no honest ones.
func TestMemoryIsBounded(t *testing.T) {
	m := &Memory{}
	c := &content{}
	of := func(i int) mark { return mark{sum: [32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, by: c} }
	m.keep(of(0), &token{size: 1000})
	for i := range 50_000 {
		m.reject(of(i), stranger{why: errSignature})
	}
	if len(m.bad) > maxBad || m.good[of(0)] == nil {
		t.Errorf("%d bad ones are remembered; the good one: %v", len(m.bad), m.good[of(0)])
	}
	for i := range 50_000 {
		m.keep(of(i), &token{size: 500 + i%1000})
		m.keep(of(i), &token{size: 600})
	}
	size := 0
	for _, x := range m.good {
		size += x.size
	}
	if m.size != size || size > maxGood || size < maxGood/2 {
		t.Errorf("%d bytes, counted %d", size, m.size)
	}
	m.keep(of(99_999), &token{size: maxGood})
	if m.good[of(99_999)] != nil {
		t.Error("one token takes all the memory")
	}
}

// TestResetLetsGo: what a Case held of a request is not held any longer.
func TestResetLetsGo(t *testing.T) {
	k := aCase(head("GET /", "a: b"), &holder{})
	k.view(true)
	k.Reset()
	if k.Head != nil || len(k.fields) != 0 || k.fields[:1][0].Name != nil {
		t.Errorf("%+v", k)
	}
	if k.request.Witness != nil || k.bears.looked {
		t.Error("it remembers")
	}
}

func TestMethodOfTunnels(t *testing.T) {
	h := head("CONNECT /chat")
	h.Upgrade = []byte("websocket")
	set := &policy.Set{Rules: []policy.Rule{{ID: "r", Tier: policy.Project, Action: policy.Allow, Requests: []policy.RequestMatch{{Methods: []string{"GET"}}}}}, Isolated: "i"}
	if v := aCase(h, &holder{}).Decide(set.Decider().Session(packet)); !v.Allow {
		t.Errorf("an extended CONNECT is not the GET that it becomes: %+v", v)
	}
	h.Upgrade = nil
	if v := aCase(h, &holder{}).Decide(set.Decider().Session(packet)); v.Allow {
		t.Errorf("a CONNECT is a GET: %+v", v)
	}
}

// manyRules is a Set of n rules of which the last allows GET /items/….
func manyRules(n int) *policy.Set {
	s := &policy.Set{Isolated: "isolated/shop/cart/ingress"}
	for i := range n {
		m := policy.RequestMatch{Methods: []string{"POST", "GET"}, Paths: []policy.TextMatch{{Kind: policy.Prefix, Value: fmt.Sprintf("/part%d", i)}}}
		switch i % 4 {
		case 1:
			m.Headers = []policy.NamedMatch{{Name: "x-team", TextMatch: policy.TextMatch{Value: fmt.Sprint(i)}}}
		case 2:
			m.Hosts = []policy.TextMatch{{Kind: policy.Suffix, Value: ".example"}}
		}
		if i == n-1 {
			m.Paths[0].Value = "/items"
			m.Headers = nil
		}
		s.Rules = append(s.Rules, policy.Rule{ID: policy.RuleID(fmt.Sprint("policy/shop/cart/ingress/", i)), Tier: policy.Project, Action: policy.Allow,
			Peers: []policy.Peer{{Identities: []policy.Identity{7}}}, Requests: []policy.RequestMatch{m}})
	}
	return s
}

func common(t testing.TB) *Case {
	es := signers()["ec-ES256"]
	var fields []string
	for i := range 14 {
		fields = append(fields, fmt.Sprintf("x-field-%d: value", i))
	}
	h := head("GET /items/4711?a=b", append(fields, "x-team: 5", "authorization: Bearer "+es.sign(payload(`,"role":["admin","user"],"more":"`+strings.Repeat("x", 300)+`"`), nil))...)
	k := aCase(h, &holder{})
	k.Keys = mustKeys(t, 0)
	return k
}

func TestDecidingAllocatesNothing(t *testing.T) {
	k := common(t)
	for name, set := range map[string]*policy.Set{"paths and headers": manyRules(10), "token": tokens(policy.Allow, role("admin"))} {
		s := set.Decider().Session(packet)
		if v := k.Decide(s); !v.Allow {
			t.Fatalf("%s: %+v", name, v)
		}
		if n := testing.AllocsPerRun(100, func() { k.Decide(s) }); n != 0 {
			t.Errorf("%s: a decision allocates %v times", name, n)
		}
	}
}

// cpuOf reports the time of processors, which does not depend on who else works.
func cpuOf(b *testing.B) (report func()) {
	cpu := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := cpu()
	return func() { b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op") }
}

func BenchmarkDecide(b *testing.B) {
	for _, c := range []struct {
		name string
		set  *policy.Set
	}{
		{"1 rule", manyRules(1)}, {"10 rules", manyRules(10)}, {"1000 rules", manyRules(1000)}, {"token", tokens(policy.Allow, role("admin"))},
	} {
		b.Run(c.name, func(b *testing.B) {
			k, s := common(b), c.set.Decider().Session(packet)
			b.ReportAllocs()
			defer cpuOf(b)()
			for b.Loop() {
				if !k.Decide(s).Allow {
					b.Fatal("denied")
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	c := mustRead(b, all())
	ids := []string{}
	for id := range signers() {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		text := signers()[id].sign(payload(`,"role":["admin","user"]`), nil)
		b.Run(id, func(b *testing.B) {
			b.ReportAllocs()
			defer cpuOf(b)()
			for b.Loop() {
				if _, err := c.verify(text, issuer, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
