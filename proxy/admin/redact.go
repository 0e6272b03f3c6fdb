package admin

import (
	"bytes"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"moire.dev/moire/snapshot/l7"
)

// hidden stands where a secret was.
const hidden = "(hidden)"

// A key in PEM, as it looks inside a JSON string; to the end of the string when
// its end is missing.
var pemKey = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[^"]*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|")`)

// configJSON is cfg without what nobody may see: keys, passwords in URLs, and
// the values of header fields that carry credentials.
func configJSON(cfg *l7.Config) ([]byte, error) {
	c := *cfg
	c.Certificates = slices.Clone(c.Certificates)
	for i := range c.Certificates {
		if k := &c.Certificates[i].Key; *k != "" {
			*k = hidden
		}
	}
	if c.Telemetry.Tracing != nil {
		t := *c.Telemetry.Tracing
		t.OTLP, t.Zipkin = withoutPassword(t.OTLP), withoutPassword(t.Zipkin)
		c.Telemetry.Tracing = &t
	}
	c.Routes = slices.Clone(c.Routes)
	for i := range c.Routes {
		r := &c.Routes[i]
		r.Rules = slices.Clone(r.Rules)
		for j := range r.Rules {
			rule := &r.Rules[j]
			rule.Filters = withoutCredentials(rule.Filters)
			rule.Backends = slices.Clone(rule.Backends)
			for k := range rule.Backends {
				rule.Backends[k].Filters = withoutCredentials(rule.Backends[k].Filters)
			}
			rule.Matches = slices.Clone(rule.Matches)
			for k := range rule.Matches {
				rule.Matches[k].Headers = withoutSecretMatches(rule.Matches[k].Headers)
			}
			if rule.Fault != nil {
				f := *rule.Fault
				f.Headers = withoutSecretMatches(f.Headers)
				rule.Fault = &f
			}
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(&c); err != nil {
		return nil, err
	}
	// Whatever field somebody put a key into.
	return pemKey.ReplaceAllFunc(b.Bytes(), func(found []byte) []byte {
		if bytes.HasSuffix(found, []byte(`"`)) {
			return []byte(hidden + `"`)
		}
		return []byte(hidden)
	}), nil
}

func withoutPassword(s string) string {
	if !strings.Contains(s, "@") {
		return s
	}
	u, err := url.Parse(s)
	if err != nil {
		return hidden
	}
	if u.User != nil {
		u.User = url.User("hidden")
	}
	return u.String()
}

func secretField(name string) bool {
	switch strings.ToLower(name) {
	case "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-auth-token":
		return true
	}
	return false
}

func withoutCredentials(in []l7.Filter) []l7.Filter {
	out := slices.Clone(in)
	for i := range out {
		for _, change := range []**l7.HeaderChange{&out[i].RequestHeaders, &out[i].ResponseHeaders} {
			if *change == nil {
				continue
			}
			c := **change
			c.Set, c.Add = withoutSecrets(c.Set), withoutSecrets(c.Add)
			*change = &c
		}
	}
	return out
}

func withoutSecrets(in []l7.Header) []l7.Header {
	out := slices.Clone(in)
	for i := range out {
		if secretField(out[i].Name) {
			out[i].Value = hidden
		}
	}
	return out
}

func withoutSecretMatches(in []l7.ValueMatch) []l7.ValueMatch {
	out := slices.Clone(in)
	for i := range out {
		if secretField(out[i].Name) {
			out[i].Value = hidden
		}
	}
	return out
}
