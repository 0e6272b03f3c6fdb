package policy

import (
	"bytes"
	"regexp"
	"strings"
)

// ask is a RequestMatch made ready.
type ask struct {
	*RequestMatch
	paths, hosts    []text
	headers, claims []named
}

// text is a TextMatch made ready.
type text struct {
	TextMatch
	pattern *regexp.Regexp // of Regex; nil: it is none that could be compared with
}

// named is a NamedMatch made ready.
type named struct {
	name string
	text text
	not  bool
}

func ready(m *RequestMatch) ask {
	a := ask{RequestMatch: m, paths: readyTexts(m.Paths), hosts: readyTexts(m.Hosts), headers: readyNamed(m.Headers)}
	if m.Token != nil {
		a.claims = readyNamed(m.Token.Claims)
	}
	return a
}

func readyText(m TextMatch) text {
	t := text{TextMatch: m}
	if m.Kind == Regex {
		// An error leaves no pattern, and every comparison Unknown.
		t.pattern, _ = regexp.Compile("^(?:" + m.Value + ")$")
	}
	return t
}

func readyTexts(in []TextMatch) []text {
	var out []text
	for _, m := range in {
		out = append(out, readyText(m))
	}
	return out
}

func readyNamed(in []NamedMatch) []named {
	var out []named
	for _, m := range in {
		out = append(out, named{name: m.Name, text: readyText(m.TextMatch), not: m.Not})
	}
	return out
}

// answer is Yes when all that is set matches. What costs most is asked last, and
// only when nothing else says No.
func (a *ask) answer(r *Request) Answer {
	if len(a.Methods) > 0 && !a.method(r.Method) || len(a.GRPC) > 0 && !(r.GRPC && a.call(r.Path)) {
		return No
	}
	out := Yes
	if len(a.paths) > 0 {
		out = anyText(a.paths, r.Path)
	}
	if len(a.hosts) > 0 && out != No {
		out = and(out, anyText(a.hosts, r.Host))
	}
	for i := range a.headers {
		if out == No {
			return No
		}
		out = and(out, a.headers[i].header(r.Fields))
	}
	if a.Token != nil && out != No {
		out = and(out, a.token(r.Witness))
	}
	if a.External != nil && out == Yes {
		if r.Witness == nil {
			return Unknown
		}
		return r.Witness.External(a.External)
	}
	return out
}

func (a *ask) method(method []byte) bool {
	for _, m := range a.Methods {
		if m == string(method) {
			return true
		}
	}
	return false
}

func (a *ask) call(path []byte) bool {
	service, method, ok := bytes.Cut(bytes.TrimPrefix(path, slash), slash)
	if !ok {
		return false
	}
	for i := range a.GRPC {
		c := &a.GRPC[i]
		if (c.Service == "" || c.Service == string(service)) && (c.Method == "" || c.Method == string(method)) {
			return true
		}
	}
	return false
}

var slash = []byte("/")

// token asks for the token and then for its claims.
func (a *ask) token(w Witness) Answer {
	if w == nil {
		return Unknown
	}
	out := w.Token(a.Token)
	for i := range a.claims {
		if out != Yes {
			break
		}
		out = a.claims[i].claim(w.Claim(a.Token, a.claims[i].name))
	}
	return out
}

func anyText(of []text, s []byte) Answer {
	out := No
	for i := range of {
		if out = or(out, compare(&of[i], s, (*regexp.Regexp).Match)); out == Yes {
			break
		}
	}
	return out
}

func compare[T string | []byte](t *text, s T, match func(*regexp.Regexp, T) bool) Answer {
	switch t.Kind {
	case Exact:
		return yes(string(s) == t.Value)
	case Prefix:
		prefix := strings.TrimSuffix(t.Value, "/")
		return yes(len(s) >= len(prefix) && string(s[:len(prefix)]) == prefix && (len(s) == len(prefix) || s[len(prefix)] == '/'))
	case Suffix:
		return yes(len(s) > len(t.Value) && string(s[len(s)-len(t.Value):]) == t.Value)
	case Present:
		return Yes
	case Regex:
		if t.pattern != nil {
			return yes(match(t.pattern, s))
		}
	}
	return Unknown
}

// header: the values have to agree, and what they are as one (RFC 9110 5.2, RFC
// 9113 8.2.3), too: some servers take the first line, some the last, some all.
func (n *named) header(fields []Field) Answer {
	out, first := No, -1
	var all []byte // of more than one line
	for i := range fields {
		if string(fields[i].Name) != n.name {
			continue
		}
		a := compare(&n.text, fields[i].Value, (*regexp.Regexp).Match)
		if first < 0 {
			out, first = a, i
			continue
		}
		if a != out {
			return Unknown
		}
		if all == nil {
			all = append(all, fields[first].Value...)
		}
		separator := ","
		if n.name == "cookie" {
			separator = "; "
		}
		all = append(append(all, separator...), fields[i].Value...)
	}
	if all != nil && compare(&n.text, all, (*regexp.Regexp).Match) != out {
		return Unknown
	}
	return n.turn(out)
}

// claim: one value is enough.
func (n *named) claim(values []string) Answer {
	out := No
	for _, v := range values {
		out = or(out, compare(&n.text, v, (*regexp.Regexp).MatchString))
	}
	return n.turn(out)
}

func (n *named) turn(a Answer) Answer {
	switch {
	case !n.not || a == Unknown:
		return a
	case a == Yes:
		return No
	}
	return Yes
}

func or(a, b Answer) Answer {
	switch {
	case a == Yes || b == Yes:
		return Yes
	case a == Unknown || b == Unknown:
		return Unknown
	}
	return No
}

func yes(b bool) Answer {
	if b {
		return Yes
	}
	return No
}

func and(a, b Answer) Answer {
	switch {
	case a == No || b == No:
		return No
	case a == Unknown || b == Unknown:
		return Unknown
	}
	return Yes
}
