package compile

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/snapshot/l7"
)

const kindSecret = "Secret"

// gateListener is one listener of a Gateway.
type gateListener struct {
	spec *gateway.Listener
	// kinds of routes that it takes.
	kinds []string
	// listener as the proxy has it; its name is that of the spec.
	l7.Listener
	// flaws: why it is not accepted, is in conflict with another, or refers to what
	// it cannot have.
	flaws []flaw
	// closed: it takes no connections because of a flaw.
	closed   bool
	attached int32
	routes   []l7.Route // clusters are names of refs
}

func (l *gateListener) bad(closes bool, condition, reason, field, text, fix string) {
	l.flaws = append(l.flaws, flaw{condition, reason, field, text, fix})
	l.closed = l.closed || closes
}

// listen makes the listeners of the Gateway.
func (d *draftGate) listen() {
	specs := d.f.edge.gateway.Spec.Listeners
	d.listeners = make([]gateListener, len(specs))
	for i := range specs {
		l := &d.listeners[i]
		l.spec = &specs[i]
		field := fmt.Sprintf("spec.listeners[%d]", i)
		l.Listener = l7.Listener{Name: string(l.spec.Name), Address: ":" + strconv.Itoa(int(l.spec.Port)), Hostname: string(deref(l.spec.Hostname))}
		d.protocol(l, field)
		l.chooseKinds(field)
		l.checkNamespaces(field)
		if !l.closed {
			d.validListener(l, field)
		}
	}
	for i := range d.listeners {
		for j := range d.listeners[:i] {
			collide(&d.listeners[i], &d.listeners[j])
		}
	}
}

// protocol reads the protocol of a listener, with its certificates.
func (d *draftGate) protocol(l *gateListener, field string) {
	mode := gateway.TLSModeTerminate
	if t := l.spec.TLS; t != nil {
		mode = cmp.Or(deref(t.Mode), mode)
		if len(t.Options) > 0 {
			l.bad(true, conditionAccepted, reasonUnsupported, field+".tls.options", "options of TLS are not supported", "remove them; TLS 1.2 and 1.3 are spoken")
		}
	}
	switch p := l.spec.Protocol; {
	case p == gateway.HTTPProtocolType:
		l.Protocol = l7.AutoHTTP
	case p == gateway.TCPProtocolType:
		l.Protocol, l.Hostname = l7.TCP, "" // it has no meaning there
	case p == gateway.TLSProtocolType && mode == gateway.TLSModePassthrough:
		l.Protocol = l7.TLS
	case p == gateway.HTTPSProtocolType && mode == gateway.TLSModeTerminate:
		l.Protocol = l7.AutoHTTP
		d.certificatesOf(l, field+".tls")
	case p == gateway.TLSProtocolType && mode == gateway.TLSModeTerminate:
		l.Protocol = l7.TCP
		d.certificatesOf(l, field+".tls")
	case p == gateway.HTTPSProtocolType:
		l.bad(true, conditionAccepted, reasonUnsupported, field+".tls.mode", "HTTPS that is passed through shows no requests", "write protocol: TLS, and attach TLSRoutes")
	default:
		l.bad(true, conditionAccepted, reasonProtocol, field+".protocol", fmt.Sprintf("protocol %q is not supported", p), "use one of HTTP, HTTPS, TLS and TCP")
	}
}

// validListener asks whether a proxy could have it.
func (d *draftGate) validListener(l *gateListener, field string) {
	whole := l7.Config{Name: "x", Listeners: []l7.Listener{l.Listener}}
	if l.TLS != nil {
		for _, name := range l.TLS.Certificates {
			whole.Certificates = append(whole.Certificates, d.certificates[name])
		}
	}
	for _, p := range whole.Validate() {
		if rest, of := strings.CutPrefix(p.Field, "listeners[0]"); of && !p.Soft {
			l.bad(true, conditionAccepted, reasonUnsupported, field+rest, p.Reason, p.Fix)
		}
	}
}

// secretOf is what a reference of a Gateway means.
func secretOf(project string, r *gateway.SecretObjectReference) Key {
	return Key{cmp.Or(string(deref(r.Namespace)), project), string(r.Name)}
}

// certificatesOf gives a listener its certificates. It is closed when it has none
// that it may use.
func (d *draftGate) certificatesOf(l *gateListener, field string) {
	l.TLS = &l7.ServerTLS{}
	bad := func(at, reason, text, fix string) {
		l.bad(false, conditionResolved, reason, at, text, fix)
	}
	var refs []gateway.SecretObjectReference
	if l.spec.TLS != nil {
		refs = l.spec.TLS.CertificateRefs
	}
	if len(refs) == 0 {
		bad(field+".certificateRefs", reasonCertificate, "there is no certificate", "name a Secret of type kubernetes.io/tls")
	}
	for i := range refs {
		r, at := &refs[i], fmt.Sprintf("%s.certificateRefs[%d]", field, i)
		k := secretOf(d.f.key.Project, r)
		what := "Secret " + k.String()
		s := d.f.secrets[k]
		switch {
		case deref(r.Group) != "" || cmp.Or(string(deref(r.Kind)), kindSecret) != kindSecret:
			bad(at, reasonCertificate, fmt.Sprintf("a %s of group %q is no certificate", deref(r.Kind), deref(r.Group)), "use a Secret")
		case !s.permitted:
			bad(at, reasonNotPermitted, "project "+k.Project+" does not let Gateways of project "+d.f.key.Project+" use "+what, "its owner would write a ReferenceGrant there")
		case s.Secret == nil && !s.unread:
			bad(at, reasonCertificate, what+" does not exist, or is not of type kubernetes.io/tls", "create it: kubectl create secret tls")
		default:
			c, why := certificate(k.String(), s.Secret)
			if why != "" {
				bad(at, reasonCertificate, what+": "+why, "write a certificate and its key, PEM, as tls.crt and tls.key")
			} else if d.certificates[c.Name] = c; !slices.Contains(l.TLS.Certificates, c.Name) {
				l.TLS.Certificates = append(l.TLS.Certificates, c.Name)
			}
		}
	}
	l.closed = l.closed || len(l.TLS.Certificates) == 0
}

// maxChain is the longest chain of certificates that a proxy gets.
const maxChain = 64 << 10

// certificate makes a certificate of a Secret; of what is in it only certificates
// and the key go on. A nil Secret is one that nobody has read.
func certificate(name string, s *Secret) (c l7.Certificate, why string) {
	c.Name = name
	if s == nil {
		return c, ""
	}
	if _, err := tls.X509KeyPair([]byte(s.Chain), []byte(s.Key)); err != nil {
		return c, strings.TrimPrefix(err.Error(), "tls: ")
	}
	pick := func(text string, is func(kind string) bool) string {
		var out bytes.Buffer
		for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
			if is(block.Type) {
				_ = pem.Encode(&out, &pem.Block{Type: block.Type, Bytes: block.Bytes}) // a buffer takes all
			}
		}
		return out.String()
	}
	c.Chain = pick(s.Chain, func(kind string) bool { return kind == "CERTIFICATE" })
	c.Key = pick(s.Key, func(kind string) bool { return kind == "PRIVATE KEY" || strings.HasSuffix(kind, " PRIVATE KEY") })
	if len(c.Chain)+len(c.Key) > maxChain {
		return c, fmt.Sprintf("it is longer than %d bytes", maxChain)
	}
	return c, ""
}

// chooseKinds finds which kinds of routes the listener takes.
func (l *gateListener) chooseKinds(field string) {
	var can []string
	switch {
	case l.Protocol == "":
		return
	case l.HTTP():
		can = []string{KindHTTPRoute, KindGRPCRoute}
	case l.Protocol == l7.TLS:
		can = []string{KindTLSRoute}
	case l.TLS != nil:
		can = []string{KindTLSRoute, KindTCPRoute}
	default:
		can = []string{KindTCPRoute}
	}
	if l.spec.AllowedRoutes == nil || len(l.spec.AllowedRoutes.Kinds) == 0 {
		l.kinds = can
		return
	}
	for i, k := range l.spec.AllowedRoutes.Kinds {
		if k.Group != nil && string(*k.Group) != gatewayGroup || !slices.Contains(can, string(k.Kind)) {
			l.bad(false, conditionResolved, reasonKinds, fmt.Sprintf("%s.allowedRoutes.kinds[%d]", field, i), fmt.Sprintf("protocol %s takes no %s", l.spec.Protocol, k.Kind), "use "+strings.Join(can, " or "))
			continue
		}
		if !l.takes(string(k.Kind)) {
			l.kinds = append(l.kinds, string(k.Kind))
		}
	}
}

func (l *gateListener) takes(kind string) bool { return slices.Contains(l.kinds, kind) }

// collide tells two listeners that cannot both be: neither is.
func collide(a, b *gateListener) {
	if a.spec.Port != b.spec.Port || a.Protocol == "" || b.Protocol == "" {
		return
	}
	reason, why := reasonHostTaken, "the same port and hostname"
	if a.Protocol != b.Protocol || (a.TLS == nil) != (b.TLS == nil) {
		reason, why = reasonPortTaken, "the same port, but another protocol"
	} else if a.Hostname != b.Hostname {
		return
	}
	for _, pair := range [][2]*gateListener{{a, b}, {b, a}} {
		pair[0].bad(true, conditionConflicted, reason, "", "listener "+pair[1].Name+" has "+why, "give one of them another port or hostname")
	}
}
