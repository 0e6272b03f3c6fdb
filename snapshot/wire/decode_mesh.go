package wire

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

func (c *check) mode(field string, n uint32) snapshot.Mode {
	if n > uint32(snapshot.Strict) {
		c.failf(field, "%d is no mode; there are 0 to %d", n, snapshot.Strict)
	}
	return snapshot.Mode(n)
}

// protocol may be empty: it is not said.
func (c *check) protocol(field, s string) l7.Protocol {
	p := l7.Protocol(s)
	if p != "" && !slices.Contains([]l7.Protocol{l7.AutoHTTP, l7.HTTP1, l7.HTTP2, l7.TLS, l7.TCP}, p) {
		c.failf(field, "%.64q is no protocol", s)
	}
	return p
}

func (c *check) serviceOf(field string, in *ServiceKey) snapshot.ServiceKey {
	return snapshot.ServiceKey{Addr: c.address(field+".addr", in.GetAddr()), Protocol: c.number8(field+".protocol", in.GetProtocol()), Port: c.uint16(field+".port", in.GetPort())}
}

func (c *check) trustKey(in *Trust) string { return c.trustName("name", in.GetName()) }

// trustName is a trust domain, perhaps with a Domain.
func (c *check) trustName(field, s string) string {
	if s == "" {
		c.failf(field, "empty")
	}
	return c.text(field, s, maxTrust)
}

func (c *check) trust(in *Trust) snapshot.Trust {
	out := snapshot.Trust{Name: in.GetName(), TrustDomain: c.trustName("trust_domain", in.GetTrustDomain()), Domain: c.text("domain", in.GetDomain(), maxName)}
	if !c.count("federates", len(in.GetFederates()), maxItems) {
		return out
	}
	for _, f := range in.GetFederates() {
		out.Federates = append(out.Federates, c.trustName("federates", f))
	}
	ascending(c, "federates", out.Federates, cmp.Compare[string])
	if !c.count("roots", len(in.GetRoots()), maxRoots) {
		return out
	}
	out.Roots = in.GetRoots()
	for _, r := range out.Roots {
		if len(r) == 0 || len(r) > maxText {
			c.failf("roots", "a certificate of %d bytes; want 1 to %d", len(r), maxText)
		}
	}
	ascending(c, "roots", out.Roots, bytes.Compare)
	if len(in.GetKeys()) > 0 {
		out.Keys = in.GetKeys()
		c.keys("keys", out.Keys)
	}
	return out
}

// keys must look like a JWK set; who verifies with them reads each key.
func (c *check) keys(field string, b []byte) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	switch {
	case len(b) > maxKeys:
		c.failf(field, "%d bytes; at most %d", len(b), maxKeys)
	case json.Unmarshal(b, &set) != nil:
		c.failf(field, "not a JWK set")
	}
}

func (c *check) frontendKey(in *Frontend) snapshot.FrontendKey {
	return snapshot.FrontendKey{ServiceKey: c.serviceOf("key", in.GetKey()), Project: c.text("project", in.GetProject(), maxName)}
}

func (c *check) frontend(in *Frontend) snapshot.Frontend {
	out := snapshot.Frontend{
		FrontendKey: c.frontendKey(in), Service: c.text("service", in.GetService(), 2*maxName), Protocol: c.protocol("protocol", in.GetProtocol()),
		Cluster: c.text("cluster", in.GetCluster(), maxCluster), Routes: c.texts("routes", in.GetRoutes()), Why: c.text("why", in.GetWhy(), maxText),
	}
	ascending(c, "routes", out.Routes, cmp.Compare[string])
	return out
}

func (c *check) routeKey(in *Route) string { return c.name("name", in.GetName()) }

func (c *check) route(in *Route) (out l7.Route) {
	c.json(in.GetJson(), &out)
	c.is("json.name", out.Name, in.GetName())
	if c.err == nil {
		c.problems(out.Validate())
	}
	return out
}

func (c *check) clusterKey(in *Cluster) string {
	if in.GetName() == "" {
		c.failf("name", "empty")
	}
	return c.text("name", in.GetName(), maxCluster)
}

func (c *check) cluster(in *Cluster) (out snapshot.Cluster) {
	c.json(in.GetJson(), &out.Cluster)
	c.is("json.name", out.Name, in.GetName())
	if c.err == nil {
		c.problems(out.Validate())
	}
	if len(out.Endpoints) > 0 {
		c.failf("json.endpoints", "%d of them; they are the backends of the service", len(out.Endpoints))
	}
	out.Asked = in.GetAsked()
	if in.GetService() != nil {
		out.Service = c.serviceOf("service", in.GetService())
	}
	if in.GetSecond() != nil {
		out.Second = c.serviceOf("second", in.GetSecond())
	}
	return out
}

// json reads one value with known fields only, and nothing behind it.
func (c *check) json(b []byte, into any) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		c.failf("json", "%.256v", err)
		return
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		c.failf("json", "something follows the value")
	}
}

func (c *check) is(field, got, want string) {
	if got != want {
		c.failf(field, "%.64q, but the row is that of %.64q", got, want)
	}
}

func (c *check) problems(all []l7.Problem) {
	if len(all) > 0 {
		c.failf("json", "%.512v", all[0])
	}
}

func (c *check) gatewayKey(in *Gateway) snapshot.GatewayKey {
	return snapshot.GatewayKey{Project: c.name("project", in.GetProject()), Name: c.name("name", in.GetName())}
}

func (c *check) gateway(in *Gateway) (out snapshot.Gateway) {
	c.json(in.GetJson(), &out)
	c.is("json.project", out.Project, in.GetProject())
	c.is("json.name", out.Name, in.GetName())
	c.is("json.attachment.project", out.Attachment.Project, in.GetProject())
	if c.err == nil {
		c.problems(out.Validate())
	}
	return out
}

func (c *check) keySetKey(in *KeySet) string {
	if in.GetUri() == "" {
		c.failf("uri", "empty")
	}
	return c.text("uri", in.GetUri(), maxRuleID)
}

func (c *check) keySet(in *KeySet) l7.KeySet {
	out := l7.KeySet{URI: in.GetUri(), JSON: in.GetJson(), Until: in.GetUntil()}
	if out.JSON != "" {
		c.keys("json", []byte(out.JSON))
	}
	if out.Until < 0 {
		c.failf("until", "%d is before 1970", out.Until)
	}
	return out
}
