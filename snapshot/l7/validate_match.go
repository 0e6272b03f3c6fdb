package l7

import (
	"regexp"
	"strings"
)

// Limits of what a match may be.
const (
	maxPattern = 1024 // bytes of a regular expression
	maxPath    = 4096 // bytes of a path
	maxDepth   = 63   // elements of a path prefix
)

func (v *validator) match(field string, kind Kind, m *Match) {
	if kind == GRPCRoute {
		if m.Path != nil {
			v.bad(field+".path", "use grpc with service and method", "grpc routes do not match by path")
		}
		if m.Method != "" {
			v.bad(field+".method", "use grpc with service and method", "grpc routes do not match by HTTP method")
		}
		if len(m.Query) > 0 {
			v.bad(field+".query", "remove it", "gRPC calls have no query")
		}
		if m.GRPC != nil {
			v.grpc(field+".grpc", m.GRPC)
		}
	} else {
		if m.GRPC != nil {
			v.bad(field+".grpc", "write kind: grpc in the route", "only grpc routes match by service")
		}
		if m.Path != nil {
			v.path(field+".path", m.Path)
		}
		if m.Method != "" {
			v.method(field+".method", m.Method)
		}
		v.values(field+".query", m.Query, false)
	}
	v.values(field+".headers", m.Headers, true)
}

func (v *validator) grpc(field string, g *GRPCMatch) {
	if !choice(v, field+".kind", g.Kind, Exact, Regex) {
		return
	}
	if g.Service == "" && g.Method == "" {
		v.bad(field, "write service, method or both, or remove grpc to match all calls", "neither service nor method is set")
	}
	for _, part := range []struct{ name, value string }{{"service", g.Service}, {"method", g.Method}} {
		switch {
		case part.value == "":
		case g.Kind == Regex:
			v.pattern(field+"."+part.name, part.value)
		case strings.ContainsFunc(part.value, func(r rune) bool { return r == '/' || r <= ' ' || r >= 0x7f }):
			v.bad(field+"."+part.name, "write it as in the .proto file, such as shop.v1.Cart", "%s is no name of a gRPC %s", quote(part.value), part.name)
		}
	}
}

func (v *validator) path(field string, p *PathMatch) {
	if !choice(v, field+".kind", p.Kind, Exact, Prefix, Regex) {
		return
	}
	field += ".value"
	switch {
	case p.Kind == Regex:
		v.pattern(field, p.Value)
	case v.normalPath(field, p.Value) && p.Kind == Prefix && strings.Count(strings.TrimSuffix(p.Value, "/"), "/") > maxDepth:
		v.bad(field, "match fewer elements", "the prefix has more than %d elements", maxDepth)
	}
}

// normalPath checks a path that is compared with, or sent in place of, what
// requests have. Requests are put into a normal form first, so that a path in
// another form would meet none of them.
func (v *validator) normalPath(field, p string) bool {
	switch {
	case p == "":
		v.bad(field, "write for example /shop", "the path is missing")
	case p[0] != '/':
		v.bad(field, "put / in front of it", "%s does not begin with /", quote(p))
	case len(p) > maxPath:
		v.bad(field, "match fewer elements", "the path has more than %d bytes", maxPath)
	case strings.Contains(p, "//"):
		v.bad(field, "write one slash: requests are matched after repeated slashes were merged", "%s has an empty element", quote(p))
	case strings.ContainsAny(p, "?#"):
		v.bad(field, "write the path only; query parameters are matched by query", "%s has a query or a fragment", quote(p))
	case strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }):
		v.bad(field, "encode it as %XX", "%s has a byte that no path may have", quote(p))
	case dotElement(p):
		v.bad(field, "write the path without them: requests are matched after they were resolved", "%s has elements . or ..", quote(p))
	default:
		return v.triplets(field, p)
	}
	return false
}

func dotElement(p string) bool {
	if !strings.Contains(p, "/.") && !strings.Contains(p, "%") {
		return false
	}
	p = strings.ReplaceAll(strings.ReplaceAll(p, "%2F", "/"), "%5C", "/")
	for e := range strings.SplitSeq(p, "/") {
		if e, _, _ := strings.Cut(e, ";"); e == "." || e == ".." {
			return true
		}
	}
	return false
}

// triplets checks what is encoded in a path.
func (v *validator) triplets(field, p string) bool {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(p); i++ {
		if p[i] != '%' {
			continue
		}
		if i+3 > len(p) {
			v.bad(field, "write %25 for a percent sign", "%s has a %% without two digits", quote(p))
			return false
		}
		high, low := strings.IndexByte(digits, p[i+1]), strings.IndexByte(digits, p[i+2])
		c := byte(high<<4 | low)
		switch {
		case high < 0 || low < 0:
			v.bad(field, "write two hexadecimal digits in upper case, and %25 for a percent sign", "%s has %s", quote(p), quote(p[i:i+3]))
			return false
		case c == 0 || (c == '/' || c == '\\') && !v.slashes:
			v.bad(field, "remove it, or write encodedSlashes: true in the listener for slashes", "%s has %s, and requests with it are refused", quote(p), p[i:i+3])
			return false
		case unreserved(c):
			v.bad(field, "write "+string(c), "%s has %s, which requests are matched without", quote(p), p[i:i+3])
			return false
		}
	}
	return true
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// values checks matches of headers or query parameters.
func (v *validator) values(field string, all []ValueMatch, headers bool) {
	seen := map[string]int{}
	for i := range all {
		m, f := &all[i], at(field, i)
		name := m.Name
		if headers {
			name = strings.ToLower(name)
			v.headerName(f+".name", name, matchless)
		} else if name == "" {
			v.bad(f+".name", "write the name of the parameter", "the name is missing")
		}
		if first, twice := seen[name]; twice && name != "" {
			v.bad(f+".name", "remove one of them, or match by a regular expression", "%s is matched by %s already, and only the first counts", quote(name), at(field, first))
		} else {
			seen[name] = i
		}
		if !choice(v, f+".kind", m.Kind, Exact, Regex) {
			continue
		}
		if m.Kind == Regex {
			v.pattern(f+".value", m.Value)
		} else if headers {
			v.headerValue(f+".value", m.Value)
		}
	}
}

// pattern checks a regular expression in RE2 syntax.
func (v *validator) pattern(field, s string) {
	if len(s) > maxPattern {
		v.bad(field, "write a shorter one, or several matches", "the regular expression has more than %d bytes", maxPattern)
		return
	}
	if s == "" {
		v.bad(field, "write an expression that the whole value has to match", "the regular expression is empty")
		return
	}
	_, err := regexp.Compile(s)
	if err == nil {
		_, err = regexp.Compile("^(?:" + s + ")$")
	}
	if err != nil {
		v.bad(field, "correct it; the syntax is that of RE2, without look-around and back-references", "%s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
}

func (v *validator) method(field, m string) {
	switch {
	case !token(m):
		v.bad(field, "write for example GET", "%s is no HTTP method", quote(m))
	case m != strings.ToUpper(m) && methods[strings.ToUpper(m)]:
		v.bad(field, "write "+strings.ToUpper(m), "methods are case-sensitive, and nobody sends %s", quote(m))
	}
}

var methods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "DELETE": true, "CONNECT": true, "OPTIONS": true, "TRACE": true, "PATCH": true}

// Fields that cannot be matched, because a message does not carry them past its
// connection, and those that filters must not touch.
var (
	matchless = map[string]string{
		"host": "use hostnames", "connection": "", "keep-alive": "", "proxy-connection": "", "transfer-encoding": "", "content-length": "", "te": "", "http2-settings": "",
	}
	untouchable = map[string]string{
		"host": "use rewrite with hostname", "connection": "", "keep-alive": "", "proxy-connection": "", "transfer-encoding": "", "content-length": "", "te": "",
		"http2-settings": "", "upgrade": "", "trailer": "", "expect": "",
	}
)

func (v *validator) headerName(field, name string, banned map[string]string) bool {
	low := strings.ToLower(name)
	fix, is := banned[low]
	switch {
	case name == "":
		v.bad(field, "write the name of a header", "the name is missing")
	case !token(name):
		v.bad(field, "write a name such as x-version", "%s is no name of a header", quote(name))
	case is && fix != "":
		v.bad(field, fix, "%s is not treated as a header", low)
	case is:
		v.bad(field, "remove it", "%s belongs to one connection or to the framing of a message, which is the proxy's own business", low)
	default:
		return true
	}
	return false
}

// headerValue is RFC 9110 section 5.5.
func (v *validator) headerValue(field, s string) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) || strings.Trim(s, " \t") != s {
		v.bad(field, "write it without control characters and without spaces around it", "%s is no value of a header", quote(s))
	}
}

// token is RFC 9110 section 5.6.2.
func token(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}
