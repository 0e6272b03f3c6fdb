package route

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// CORS lets pages of other origins read answers (Fetch standard, section 3.2;
// Gateway API HTTPCORSFilter). What it says replaces what the back end says.
type CORS struct {
	any         bool // every origin
	credentials bool
	origins     []origin
	methods     list
	headers     list
	exposed     list
	maxAge      []byte
}

// origin is scheme://host:port, the port left out when it is the scheme's.
type origin struct {
	scheme string
	host   string // the end of it when wild, with its dot; empty: all
	port   string
	wild   bool
}

// list is a header value made once.
type list struct {
	all   bool // *
	value []byte
}

func compileCORS(c *l7.CORS) *CORS {
	out := &CORS{credentials: c.AllowCredentials, methods: compileList(c.AllowMethods), headers: compileList(c.AllowHeaders), exposed: compileList(c.ExposeHeaders)}
	for _, o := range c.AllowOrigins {
		if o == "*" {
			out.any = true
			continue
		}
		p, ok := parseOrigin(strings.ToLower(o))
		if !ok {
			continue // Validate refuses it
		}
		p.wild = strings.HasPrefix(p.host, "*")
		p.host = strings.TrimPrefix(p.host, "*")
		out.origins = append(out.origins, p)
	}
	age := c.MaxAge
	if age == 0 {
		age = 5
	}
	out.maxAge = strconv.AppendInt(nil, int64(age), 10)
	return out
}

func compileList(all []string) list {
	if slices.Contains(all, "*") {
		return list{all: true, value: []byte("*")}
	}
	return list{value: []byte(strings.Join(all, ", "))}
}

// parseOrigin splits an origin; a port that is the scheme's own is dropped.
func parseOrigin(s string) (origin, bool) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || rest == "" {
		return origin{}, false
	}
	o := origin{scheme: scheme, host: rest}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "]") {
		o.host, o.port = rest[:i], rest[i+1:]
	}
	if scheme == "http" && o.port == "80" || scheme == "https" && o.port == "443" {
		o.port = ""
	}
	return o, o.host != ""
}

// allows says whether an origin may read answers.
func (c *CORS) allows(from []byte) bool {
	if c.any {
		return true
	}
	scheme, rest, ok := bytes.Cut(from, schemeEnd)
	if !ok {
		return false
	}
	host, port := cutPort(rest)
	if string(scheme) == "http" && string(port) == "80" || string(scheme) == "https" && string(port) == "443" {
		port = nil
	}
	for i := range c.origins {
		if o := &c.origins[i]; string(scheme) == o.scheme && string(port) == o.port && o.takes(host) {
			return true
		}
	}
	return false
}

var schemeEnd = []byte("://")

// takes compares a host without regard to case.
func (o *origin) takes(host []byte) bool {
	n := len(host) - len(o.host)
	if n < 0 || !o.wild && n != 0 || o.wild && n == 0 {
		return false
	}
	for i := range len(o.host) {
		c := host[n+i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != o.host[i] {
			return false
		}
	}
	return true
}

// Origin is who asked, kept from the request until its answer comes.
type Origin struct {
	value   []byte // nil: the request has no Origin
	allowed bool
}

// Origin looks at a request, before it goes on. The result is kept in a.
func (c *CORS) Origin(request *message.Head, a *Arena) Origin {
	v, ok := request.Get(message.Origin)
	if !ok {
		return Origin{}
	}
	return Origin{value: a.keep(v), allowed: c.allows(v)}
}

// Preflight answers the question of a browser whether it may ask: a request
// with OPTIONS, Origin and Access-Control-Request-Method. It resets answer, and
// says false when the request is no preflight. The status is 204, or 403 when
// the origin is not allowed.
func (c *CORS) Preflight(request, answer *message.Head, a *Arena) bool {
	o := c.Origin(request, a)
	method, asked := request.Get(message.AccessControlRequestMethod)
	if o.value == nil || !asked || !request.IsMethod("OPTIONS") {
		return false
	}
	answer.Reset()
	answer.Status, answer.Minor, answer.Framing = 204, 1, message.None
	if !o.allowed {
		answer.Status, answer.Framing, answer.Length = 403, message.Sized, 0
		c.vary(answer)
		return true
	}
	c.allow(answer, o)
	switch {
	case c.methods.all && c.credentials:
		answer.Add(allowMethods, a.keep(method))
	case len(c.methods.value) > 0:
		answer.Add(allowMethods, c.methods.value)
	}
	headers, some := request.Get(message.AccessControlRequestHeaders)
	switch {
	case c.headers.all && c.credentials:
		if some {
			answer.Add(allowHeaders, a.keep(headers))
		}
	case len(c.headers.value) > 0:
		answer.Add(allowHeaders, c.headers.value)
	}
	if len(c.exposed.value) > 0 && !(c.exposed.all && c.credentials) {
		answer.Add(exposeHeaders, c.exposed.value)
	}
	answer.Add(maxAge, c.maxAge)
	c.vary(answer)
	if c.methods.all && c.credentials || c.headers.all && c.credentials {
		answer.Add(varyName, preflightVary)
	}
	return true
}

// Response puts what the origin may do into an answer, ours or the back end's.
func (c *CORS) Response(answer *message.Head, o Origin, a *Arena) {
	kept := answer.Fields[:0]
	for _, f := range answer.Fields {
		if f.ID != message.Other || !bytes.HasPrefix(f.Name, accessControl) {
			kept = append(kept, f)
		}
	}
	answer.Fields = kept
	if o.allowed {
		exposed := c.exposed.value
		if c.exposed.all && c.credentials {
			exposed = a.names(answer)
		}
		c.allow(answer, o)
		if len(exposed) > 0 {
			answer.Add(exposeHeaders, exposed)
		}
	}
	c.vary(answer)
}

func (c *CORS) allow(answer *message.Head, o Origin) {
	if c.any && !c.credentials {
		answer.Add(allowOrigin, star)
		return
	}
	answer.Add(allowOrigin, o.value)
	if c.credentials {
		answer.Add(allowCredentials, yes)
	}
}

// vary tells caches that the answer depends on who asked.
func (c *CORS) vary(answer *message.Head) {
	if c.any && !c.credentials {
		return
	}
	for i := range answer.Fields {
		if f := &answer.Fields[i]; f.ID == message.Vary && lists(f.Value, originName) {
			return
		}
	}
	answer.Add(varyName, originName)
}

// lists says whether a list has an entry, or *.
func lists(value, want []byte) bool {
	for len(value) > 0 {
		entry, rest, _ := bytes.Cut(value, comma)
		entry = bytes.TrimSpace(entry)
		if bytes.EqualFold(entry, want) || bytes.Equal(entry, star) {
			return true
		}
		value = rest
	}
	return false
}

// keep copies b into a.
func (a *Arena) keep(b []byte) []byte {
	mark := len(a.buf)
	a.buf = append(a.buf, b...)
	return a.since(mark)
}

// names lists the fields of an answer.
func (a *Arena) names(h *message.Head) []byte {
	mark := len(a.buf)
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID != message.SetCookie {
			if len(a.buf) > mark {
				a.buf = append(a.buf, ", "...)
			}
			a.buf = append(a.buf, f.Name...)
		}
	}
	return a.since(mark)
}

var (
	comma            = []byte{','}
	star             = []byte("*")
	yes              = []byte("true")
	originName       = []byte(message.Origin.String())
	varyName         = []byte(message.Vary.String())
	preflightVary    = []byte("access-control-request-method, access-control-request-headers")
	accessControl    = []byte("access-control-")
	allowOrigin      = []byte("access-control-allow-origin")
	allowCredentials = []byte("access-control-allow-credentials")
	allowMethods     = []byte("access-control-allow-methods")
	allowHeaders     = []byte("access-control-allow-headers")
	exposeHeaders    = []byte("access-control-expose-headers")
	maxAge           = []byte("access-control-max-age")
)
