package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/proxy/message"
	routes "moire.dev/moire/proxy/route"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Request is one HTTP request of a Query. What a head does not say is assumed.
type Request struct {
	Method string
	// Target is the path, perhaps with a query.
	Target string
	// Host that is asked for. Empty: the name of the Service, or what To says.
	Host   string
	Fields []Field
	// Claims, when there are any, are those of a valid token that the request is
	// taken to bear, iss and aud among them.
	Claims map[string][]string
	// External says whether authorizers agree: yes or no. Empty: it is not known.
	External string
}

// Field is one header field.
type Field struct{ Name, Value string }

// ParseRequest reads "METHOD PATH" or "PATH".
func ParseRequest(text string) (*Request, error) {
	words := strings.Fields(text)
	if len(words) == 1 && strings.HasPrefix(words[0], "/") {
		words = []string{"GET", words[0]}
	}
	if len(words) != 2 || !strings.HasPrefix(words[1], "/") && words[1] != "*" {
		return nil, fmt.Errorf(`%q is no request; write it like "GET /cart?id=7"`, text)
	}
	return &Request{Method: words[0], Target: words[1]}, nil
}

// addField reads "name: value" or "name=value".
func (r *Request) addField(text string) error {
	i := strings.IndexAny(text, ":=")
	if i < 1 {
		return fmt.Errorf(`%q is no header; write it like "x-role: admin"`, text)
	}
	name, value := strings.ToLower(strings.TrimSpace(text[:i])), strings.TrimSpace(text[i+1:])
	if name == "host" {
		r.Host = value
		return nil
	}
	r.Fields = append(r.Fields, Field{name, value})
	return nil
}

// addClaim reads "name=value".
func (r *Request) addClaim(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is no claim; write it like iss=https://id.example.com or groups=admin", text)
	}
	if r.Claims == nil {
		r.Claims = map[string][]string{}
	}
	r.Claims[name] = append(r.Claims[name], value)
	return nil
}

// Add takes header fields, claims, and what authorizers say.
func (r *Request) Add(fields, claims []string, external string) error {
	for _, f := range fields {
		if err := r.addField(f); err != nil {
			return err
		}
	}
	for _, c := range claims {
		if err := r.addClaim(c); err != nil {
			return err
		}
	}
	if external != "" && external != "yes" && external != "no" {
		return fmt.Errorf("%q is no answer of an authorizer; write yes or no", external)
	}
	r.External = external
	return nil
}

// exchange is a Request on one of its ways, as proxies change it.
type exchange struct {
	*Request
	head    message.Head
	scratch routes.Scratch
	arena   routes.Arena
	// refused says why no proxy takes it (400).
	refused string
	// unknown are questions of rules whose answer is not known.
	unknown []string
}

// begin makes the head that the application sends.
func (r *Request) begin(host string) *exchange {
	x := &exchange{Request: r}
	x.head = message.Head{Method: []byte(r.Method), Path: []byte(r.Target), Authority: []byte(host), Minor: 1}
	for _, f := range r.Fields {
		x.head.Add([]byte(f.Name), []byte(f.Value))
	}
	x.normal()
	return x
}

// normal puts the path into the form in which all decide about it.
func (x *exchange) normal() { x.refused = x.scratch.Normal(&x.head, false, &x.arena) }

// asked is what rules are asked about.
func (x *exchange) asked() *policy.Request {
	x.normal()
	r := &policy.Request{Method: x.head.Method, Path: x.head.PathOnly(), Host: slices.Clone(x.scratch.Host()), GRPC: routes.IsGRPC(&x.head), Witness: x}
	for _, f := range x.head.Fields {
		r.Fields = append(r.Fields, policy.Field{Name: f.Name, Value: f.Value})
	}
	return r
}

func (x *exchange) String() string {
	return fmt.Sprintf("%s %s of %s", x.head.Method, x.head.Path, x.head.Authority)
}

func (x *exchange) doubt(what string) policy.Answer {
	if !slices.Contains(x.unknown, what) {
		x.unknown = append(x.unknown, what)
	}
	return policy.Unknown
}

// Token implements policy.Witness: no signature is verified here.
func (x *exchange) Token(t *policy.Token) policy.Answer {
	_, bears := x.head.Get(message.Authorization)
	switch {
	case x.Claims == nil && bears:
		return x.doubt("whether the token of the request is valid; say what it claims")
	case x.Claims == nil, !slices.Contains(x.Claims["iss"], t.Issuer):
		return policy.No
	case len(t.Audiences) > 0 && !slices.ContainsFunc(t.Audiences, func(a string) bool { return slices.Contains(x.Claims["aud"], a) }):
		return policy.No
	}
	return policy.Yes
}

// Claim implements policy.Witness.
func (x *exchange) Claim(_ *policy.Token, name string) []string { return x.Claims[name] }

// External implements policy.Witness.
func (x *exchange) External(e *policy.External) policy.Answer {
	switch x.Request.External {
	case "yes":
		return policy.Yes
	case "no":
		return policy.No
	}
	return x.doubt("whether " + e.Cluster + " agrees")
}

// authority is the host that an application asks for when nothing else is said.
func (p *path) authority() string {
	to := p.ends.to
	switch {
	case p.q.Request.Host != "":
		return p.q.Request.Host
	case to.dns != "":
		return to.dns
	case p.name != "":
		return p.name
	}
	named := slices.ContainsFunc(p.servicesOf(to), func(x snapshot.Service) bool { return x.Addr.IP == p.dst })
	if s := p.snaps[p.src.Node]; s != nil && !to.addr.IsValid() && named {
		if zone := s.Names[p.src.Addr.VNI].Zone; zone != "" {
			return to.name + "." + to.project + "." + zone
		}
	}
	if p.dst.IsValid() {
		return netip.AddrPortFrom(p.dst, p.port).String()
	}
	return to.name
}
