package l7

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
)

// whole checks what concerns all of c, and notes the names.
func (v *validator) whole() {
	c := v.config
	if c.Name == "" {
		v.bad("name", "write a name for this proxy; records, metrics and traces carry it", "the name is missing")
	}
	v.span("workers", c.Workers, 0, 1024)
	v.notNegative("drain", c.Drain)
	if len(c.Listeners) == 0 && c.Mesh == nil {
		v.bad("listeners", "write at least one with a name and an address", "there is no listener")
	}
	v.listeners = unique(v, "listener", len(c.Listeners), func(i int) string { return c.Listeners[i].Name })
	unique(v, "route", len(c.Routes), func(i int) string { return c.Routes[i].Name })
	v.clusters = unique(v, "cluster", len(c.Clusters), func(i int) string { return c.Clusters[i].Name })
	v.certificates = unique(v, "certificate", len(c.Certificates), func(i int) string { return c.Certificates[i].Name })
	for i := range c.Listeners {
		v.slashes = v.slashes || c.Listeners[i].EncodedSlashes
	}
}

// unique checks the names of one list.
func unique(v *validator, what string, n int, name func(int) string) map[string]int {
	known := make(map[string]int, n)
	for i := range n {
		field := at(what+"s", i) + ".name"
		s := name(i)
		first, twice := known[s]
		switch {
		case s == "":
			v.bad(field, "write a name", "the name is missing")
			continue
		case twice:
			v.bad(field, "give each its own name", "%s already is the name of %s", quote(s), at(what+"s", first))
			continue
		case len(s) > 253 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			v.bad(field, "use letters, digits, - _ . and /", "%s is no name: it is too long or has spaces", quote(s))
		}
		known[s] = i
	}
	return known
}

// quote shortens what it quotes, and never shows a key.
func quote(s string) string {
	if strings.Contains(strings.ToUpper(s), "-----BEGIN") {
		return "a PEM text"
	}
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "..."
	}
	return fmt.Sprintf("%q", s)
}

func (v *validator) listener(field string, l *Listener, i int) {
	v.address(field+".address", l.Address, 0)
	if !choice(v, field+".protocol", l.Protocol, AutoHTTP, HTTP1, HTTP2, TLS, TCP) {
		return
	}
	if l.Hostname != "" {
		v.hostname(field+".hostname", l.Hostname, true)
		if l.Protocol == TCP && l.TLS == nil {
			v.bad(field+".hostname", "remove it", "plain TCP has no host that could be looked at")
		}
	}
	switch {
	case l.Protocol == TLS && l.TLS != nil:
		v.bad(field+".tls", "remove tls to pass connections through, or write protocol: tcp to terminate TLS", "protocol tls passes connections through unopened")
	case l.TLS != nil:
		v.serverTLS(field+".tls", l.TLS)
	}
	if l.EncodedSlashes && !l.HTTP() {
		v.bad(field+".encodedSlashes", "remove it", "protocol %s has no paths", l.Protocol)
	}
	if len(l.Asking) > 0 && (l.View == "" || cmp.Or(l.Protocol, AutoHTTP) != AutoHTTP) {
		v.bad(field+".asking", "remove it", "only a listener of a view, with protocol http, can speak HTTP with some and bytes with others")
	}
	if l.Address == "" {
		return
	}
	where := place{l.View, l.Address}
	for n, j := range v.places[where] {
		if o := &v.config.Listeners[j]; o.Hostname == l.Hostname {
			v.bad(field+".address", "give one of them another address or hostname", "%s has the same address and hostname", at("listeners", j))
		} else if n == 0 {
			v.shared(field, l, at("listeners", j), o)
		}
	}
	v.places[where] = append(v.places[where], i)
}

// place is an address as the Workloads of a View see it.
type place struct{ view, address string }

// shared checks two listeners of one address: the host tells them apart, so all
// that is decided before the host is known must be the same.
func (v *validator) shared(field string, l *Listener, other string, o *Listener) {
	switch {
	case cmp.Or(o.Protocol, AutoHTTP) != cmp.Or(l.Protocol, AutoHTTP):
		v.bad(field+".protocol", "use one protocol, or another address", "%s has the same address, but speaks %s", other, cmp.Or(o.Protocol, AutoHTTP))
	case (o.TLS == nil) != (l.TLS == nil):
		v.bad(field+".tls", "use TLS in both or in none, or another address", "%s has the same address, but only one of them speaks TLS", other)
	case o.ProxyProtocol != l.ProxyProtocol:
		v.bad(field+".proxyProtocol", "write the same in both", "%s has the same address, but another proxyProtocol", other)
	case o.Trusted != l.Trusted:
		v.bad(field+".trusted", "write the same in both", "%s has the same address, but another value of trusted", other)
	case !reflect.DeepEqual(o.Limits, l.Limits):
		v.bad(field+".limits", "write the same in both", "%s has the same address, but other limits", other)
	}
}

// address checks host:port with an IP address or no host. Least is the lowest
// port.
func (v *validator) address(field, s string, least uint16) {
	const fix = "write for example 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:80"
	text := s
	if strings.HasPrefix(s, ":") && least == 0 {
		text = "0.0.0.0" + s
	}
	a, err := netip.ParseAddrPort(text)
	switch {
	case s == "":
		v.bad(field, fix, "the address is missing")
	case err != nil:
		v.bad(field, fix, "%s is not an IP address with a port", quote(s))
	case a.Port() < least:
		v.bad(field, "write a port from 1 to 65535", "port 0 cannot be reached")
	}
}

func (v *validator) serverTLS(field string, t *ServerTLS) {
	if len(t.Certificates) == 0 {
		v.bad(field+".certificates", "name at least one of the certificates", "TLS needs a certificate")
	}
	for i, name := range t.Certificates {
		v.reference(at(field+".certificates", i), "certificate", name, v.certificates)
	}
	v.noFile(field+".clientCAFile", t.ClientCAFile, t.ClientCA)
	if t.ClientCA == "" {
		const fix = "write clientCA with the PEM bundle of their authority, or remove this"
		if t.ClientOptional {
			v.bad(field+".clientOptional", fix, "callers are not asked for certificates without clientCA")
		}
		if len(t.Callers) > 0 {
			v.bad(field+".callers", fix, "callers are not asked for certificates without clientCA")
		}
	}
	v.identities(field+".callers", t.Callers)
	choice(v, field+".minVersion", t.MinVersion, "1.2", "1.3")
}

// noFile refuses the name of a bundle that nobody has opened: without its text
// nothing would be verified.
func (v *validator) noFile(field, file, text string) {
	switch {
	case file != "" && text != "":
		v.bad(field, "keep one of them", "the bundle is in a file and here")
	case file != "":
		v.bad(field, "write the PEM text in place of the name", "the file is opened only when a configuration is loaded from a file")
	}
}

// identities checks URI SANs.
func (v *validator) identities(field string, all []string) {
	for i, s := range all {
		if u, err := url.Parse(s); err != nil || u.Scheme == "" || u.Host == "" {
			v.bad(at(field, i), "write it as in the certificate, such as spiffe://example.org/shop/web", "%s is not a URI", quote(s))
		}
	}
}

// hostname checks a DNS name in lower case, perhaps with a wildcard.
func (v *validator) hostname(field, s string, wildcard bool) bool {
	name, wild := TrimWildcard(s)
	low := strings.ToLower(s)
	switch {
	case s == "*":
		v.bad(field, "leave the hostname out to mean every host", "* alone is no hostname")
	case wild && !wildcard:
		v.bad(field, "write one full name", "%s has a wildcard, which is not possible here", quote(s))
	case s != low && dnsName(strings.ToLower(name)):
		v.bad(field, "write "+low, "%s is not in lower case", quote(s))
	case strings.Contains(name, "*"):
		v.bad(field, "write * as the first label only, as in *.example.com", "%s has a wildcard elsewhere than as its first label", quote(s))
	case isAddress(name):
		v.bad(field, "write a name; for addresses leave hostnames out", "%s is an address", quote(s))
	case !dnsName(name):
		v.bad(field, "write a name such as shop.example.com, without port and without a dot at its end", "%s is no host name", quote(s))
	default:
		return true
	}
	return false
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil
}

// dnsName is RFC 1123 section 2.1 with _ allowed, at most 64 labels.
func dnsName(s string) bool {
	labels := strings.Split(s, ".")
	if len(s) > 253 || len(labels) > 64 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range []byte(l) {
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

func (v *validator) certificate(field string, c *Certificate) {
	for _, part := range []struct{ name, text, file string }{{"chain", c.Chain, c.ChainFile}, {"key", c.Key, c.KeyFile}} {
		switch {
		case part.text == "" && part.file == "":
			v.bad(field+"."+part.name, fmt.Sprintf("write %s with PEM, or %sFile with a path", part.name, part.name), "the %s is missing", part.name)
		case part.text != "" && part.file != "":
			v.bad(field+"."+part.name+"File", "keep one of them", "the %s is in the file and here", part.name)
		}
	}
}

func (v *validator) telemetry(field string, t *Telemetry) {
	choice(v, field+".accessFormat", t.AccessFormat, "json", "text")
	if path, ok := strings.CutPrefix(t.Records, "unix:"); ok && !strings.HasPrefix(path, "/") {
		v.bad(field+".records", "write unix:/run/records.sock for example", "%s has no absolute path", quote(t.Records))
	}
	if t.NoRecords && t.Records != "" {
		v.bad(field+".records", "remove noRecords or this", "records are turned off")
	}
	c := t.Tracing
	if c == nil {
		return
	}
	field += ".tracing"
	if !(c.Sample >= 0 && c.Sample <= 1) {
		v.bad(field+".sample", "write a share from 0 to 1, such as 0.01", "%v is out of range", c.Sample)
	}
	v.collector(field+".otlp", c.OTLP)
	v.collector(field+".zipkin", c.Zipkin)
	choice(v, field+".propagate", c.Propagate, "w3c", "b3", "both")
}

func (v *validator) collector(field, s string) {
	if s == "" {
		return
	}
	if u, err := url.Parse(s); err != nil || u.Scheme != "http" || u.Host == "" {
		v.bad(field, "write for example http://127.0.0.1:4318/v1/traces", "%s is not an http URL", quote(s))
	}
}
