package v1alpha1

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"moire.dev/moire/snapshot/l7"
)

// requests checks the part of a rule about requests.
func (j *judge) requests(field string, r *Rule) {
	if !r.AboutRequests() {
		j.present(field+".http", r.HTTP != nil)
		j.present(field+".grpc", r.GRPC != nil)
		return
	}
	j.requestPorts(field+".ports", r.Ports)
	if j.count(field+".http", len(r.HTTP), 8) {
		for i := range r.HTTP {
			j.http(fmt.Sprintf("%s.http[%d]", field, i), &r.HTTP[i])
		}
	}
	if j.count(field+".grpc", len(r.GRPC), 8) {
		for i := range r.GRPC {
			g, at := &r.GRPC[i], fmt.Sprintf("%s.grpc[%d]", field, i)
			j.callName(at+".service", g.Service, grpcService)
			j.callName(at+".method", g.Method, grpcMethod)
			j.headers(at+".headers", g.Headers)
		}
	}
	if r.JWT != nil {
		j.jwt(field+".jwt", r.JWT)
	}
	if r.External != "" {
		j.ruleName(field+".external", r.External)
		if r.Action != ActionAllow && r.Action != ActionAccept {
			j.add(CodeExternal, field+".external", "write a rule that allows what the service agrees to; the rest is denied where a Policy selects the Workload",
				"external says what may pass, so it exists only in rules that allow or accept")
		}
	}
}

// present refuses an empty list, which could mean all or nothing.
func (j *judge) present(field string, empty bool) {
	if empty {
		j.add(CodeMissing, field, "write - {} for every request, or leave the list out", "the list is empty")
	}
}

// requestPorts: requests travel in TCP.
func (j *judge) requestPorts(field string, ports []Port) {
	other := slices.IndexFunc(ports, func(p Port) bool { return p.Protocol != "" && p.Protocol != "TCP" })
	switch {
	case other < 0:
	case !slices.ContainsFunc(ports, func(p Port) bool { return p.Protocol == "" || p.Protocol == "TCP" }):
		j.add(CodeRequestPort, field, "give the rule a TCP port, or leave ports out", "requests travel in TCP, so the rule could never match")
	default:
		j.warn(CodeRequestPort, fmt.Sprintf("%s[%d]", field, other), "remove it, or write a rule of its own for it", "requests travel in TCP, so the rule never matches %s", ports[other].Protocol)
	}
}

var (
	requestHost = regexp.MustCompile(`^(\*\.)?[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*$`)
	grpcService = regexp.MustCompile(`^[A-Za-z0-9_.]*$`)
	grpcMethod  = regexp.MustCompile(`^[A-Za-z0-9_]*$`)
	httpMethod  = regexp.MustCompile("^[!#$%&'*+.^_|~0-9A-Z-]+$")
	jwksURI     = regexp.MustCompile(`^https://[^/?#@]+(/.*)?$`)
)

func (j *judge) callName(field, s string, form *regexp.Regexp) {
	j.length(field, s, 1024)
	if !form.MatchString(s) {
		j.add(CodeRequest, field, "write it as in the .proto file, such as shop.v1.Cart and GetItem", "%q is no name of a service or method", s)
	}
}

func (j *judge) http(field string, m *HTTPMatch) {
	if j.count(field+".methods", len(m.Methods), 16) {
		j.set(field+".methods", m.Methods)
		for i, s := range m.Methods {
			j.length(fmt.Sprintf("%s.methods[%d]", field, i), s, 32)
			if !httpMethod.MatchString(s) {
				j.add(CodeRequest, fmt.Sprintf("%s.methods[%d]", field, i), "write for example GET; methods are compared in upper case", "%q is no method", s)
			}
		}
	}
	if j.count(field+".paths", len(m.Paths), 16) {
		for i := range m.Paths {
			j.path(fmt.Sprintf("%s.paths[%d]", field, i), &m.Paths[i])
		}
	}
	if j.count(field+".hosts", len(m.Hosts), 32) {
		j.set(field+".hosts", m.Hosts)
		for i, h := range m.Hosts {
			j.length(fmt.Sprintf("%s.hosts[%d]", field, i), h, 253)
			if !requestHost.MatchString(h) {
				j.add(CodeRequest, fmt.Sprintf("%s.hosts[%d]", field, i), "write it in lower case and without port, such as shop.example.com or *.example.com", "%q is no host", h)
			}
		}
	}
	j.headers(field+".headers", m.Headers)
}

// maxRegex bounds a regular expression; the API server asks for it, because it
// looks at each.
const maxRegex = 512

// path is judged as that of a route: requests are put into the same form first.
func (j *judge) path(field string, p *PathMatch) {
	match := l7.PathMatch{}
	set := 0
	for _, way := range []struct {
		kind  l7.MatchKind
		field string
		value string
	}{{l7.Exact, "exact", p.Exact}, {l7.Prefix, "prefix", p.Prefix}, {l7.Regex, "regex", p.Regex}} {
		if way.value != "" {
			set++
			match = l7.PathMatch{Kind: way.kind, Value: way.value}
			j.told(field+"."+way.field, &l7.Match{Path: &match})
		}
	}
	j.length(field+".regex", p.Regex, maxRegex)
	j.ways(field, set, "exact, prefix or regex")
}

func (j *judge) ways(field string, n int, which string) {
	if n != 1 {
		j.add(CodeRequest, field, "write one of "+which, "it is compared in exactly one way, and %d are written", n)
	}
}

// told takes over what the judge of routes says of a match with one part.
func (j *judge) told(field string, m *l7.Match) {
	for _, p := range m.Validate() {
		j.add(CodeRequest, field, strings.ReplaceAll(p.Fix, "hostnames", "hosts"), "%s", p.Reason)
	}
}

func (j *judge) headers(field string, all []NamedMatch) {
	j.named(field, all, func(at string, m *NamedMatch) {
		value := l7.ValueMatch{Name: m.Name, Value: "x"}
		switch {
		case m.Regex != "":
			value.Kind, value.Value = l7.Regex, m.Regex
		case m.Exact != nil:
			value.Value = *m.Exact
		}
		j.told(at, &l7.Match{Headers: []l7.ValueMatch{value}})
	})
}

func (j *judge) named(field string, all []NamedMatch, more func(at string, m *NamedMatch)) {
	if !j.count(field, len(all), 8) {
		return
	}
	for i := range all {
		m, at := &all[i], fmt.Sprintf("%s[%d]", field, i)
		set := 0
		for _, is := range []bool{m.Exact != nil, m.Regex != "", m.Present} {
			if is {
				set++
			}
		}
		j.ways(at, set, "exact, regex or present: true")
		j.length(at+".name", m.Name, 253)
		j.length(at+".regex", m.Regex, maxRegex)
		if m.Exact != nil {
			j.length(at+".exact", *m.Exact, 4096)
		}
		if m.Name == "" {
			j.add(CodeMissing, at+".name", "write the name", "the name is missing")
			continue
		}
		more(at, m)
	}
}

func (j *judge) jwt(field string, t *JWTMatch) {
	if t.Issuer == "" {
		j.add(CodeMissing, field+".issuer", "write what the claim iss of its tokens is", "the issuer is missing")
	}
	j.length(field+".issuer", t.Issuer, 1024)
	if j.count(field+".audiences", len(t.Audiences), 16) {
		j.set(field+".audiences", t.Audiences)
		for i, a := range t.Audiences {
			j.length(fmt.Sprintf("%s.audiences[%d]", field, i), a, 253)
			if a == "" {
				j.add(CodeMissing, fmt.Sprintf("%s.audiences[%d]", field, i), "write what the claim aud of its tokens is", "the audience is missing")
			}
		}
	}
	if (t.JWKSURI != "") == (t.JWKS != "") {
		j.add(CodeRequest, field, "write jwksURI or jwks", "the keys of the issuer are in exactly one place")
	}
	j.length(field+".jwksURI", t.JWKSURI, 1024)
	if t.JWKSURI != "" && !jwksURI.MatchString(t.JWKSURI) {
		j.add(CodeURL, field+".jwksURI", "write for example https://id.example.com/jwks.json; who is in between could change what comes over http", "%q is no https URL", t.JWKSURI)
	}
	j.length(field+".jwks", t.JWKS, 65536)
	if t.JWKS != "" && !IsJWKS(t.JWKS) {
		j.add(CodeRequest, field+".jwks", `write {"keys": [...]} as the issuer publishes it`, "it is not a JWK set")
	}
	j.named(field+".claims", t.Claims, func(at string, m *NamedMatch) {
		if m.Regex != "" {
			_, err := regexp.Compile(m.Regex)
			if err == nil {
				_, err = regexp.Compile("^(?:" + m.Regex + ")$")
			}
			if err != nil {
				j.add(CodeRequest, at+".regex", "correct it; the syntax is that of RE2, without look-around and back-references", "%s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
			}
		}
	})
}

// IsJWKS says whether a text has the form of a JWK set.
func IsJWKS(text string) bool {
	var set struct {
		Keys *[]map[string]any `json:"keys"`
	}
	return json.Unmarshal([]byte(text), &set) == nil && set.Keys != nil
}

func (j *judge) mtls(field, mode string) {
	if mode != "" {
		j.choice(field, mode, MTLSOff, MTLSPermissive, MTLSStrict)
	}
}

// ValidateMTLS says what is wrong with the annotation MTLSAnnotation of a
// namespace.
func ValidateMTLS(namespace, mode string) []Problem {
	j := &judge{object: "Namespace " + namespace}
	j.mtls("metadata.annotations["+MTLSAnnotation+"]", mode)
	return j.problems
}

func (j *judge) authorizers(field string, all []Authorizer) {
	if !j.count(field, len(all), 32) {
		return
	}
	seen := map[string]bool{}
	for i := range all {
		a, at := &all[i], fmt.Sprintf("%s[%d]", field, i)
		j.ruleName(at+".name", a.Name)
		if seen[a.Name] {
			j.add(CodeRepeated, at+".name", "give each its own name", "%q is there twice", a.Name)
		}
		seen[a.Name] = true
		for _, f := range []struct {
			name, value string
			limit       int
		}{{"project", a.Project, 63}, {"service", a.Service, 253}} {
			j.length(at+"."+f.name, f.value, f.limit)
			if f.value == "" {
				j.add(CodeMissing, at+"."+f.name, "write the "+f.name+" of the Service that is asked", "the %s is missing", f.name)
			}
		}
		j.number(at+".port", a.Port, 1, 65535)
		j.number(at+".timeoutMilliseconds", cmp.Or(a.TimeoutMilliseconds, 200), 1, 60000)
		j.choice(at+".onFailure", cmp.Or(a.OnFailure, OnFailureDeny), OnFailureDeny, OnFailureAllow)
		j.number(at+".status", cmp.Or(a.Status, 403), 400, 599)
	}
}
