package snapshot

import (
	"encoding/json"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

func (h *hasher) texts(all []string) {
	h.number(uint64(len(all)))
	for _, s := range all {
		h.text(s)
	}
}

func (h *hasher) serviceKey(k *ServiceKey) {
	h.addr(k.Addr)
	h.number(uint64(k.Protocol))
	h.number(uint64(k.Port))
}

func (h *hasher) trust(_ string, t *Trust) {
	h.text(t.Name)
	h.text(t.TrustDomain)
	h.text(t.Domain)
	h.number(uint64(len(t.Roots)))
	for _, r := range t.Roots {
		h.text(string(r))
	}
	h.text(string(t.Keys))
	h.texts(t.Federates)
}

func (h *hasher) frontend(_ FrontendKey, f *Frontend) {
	h.serviceKey(&f.ServiceKey)
	for _, s := range [...]string{f.Project, f.Service, string(f.Protocol), f.Cluster, f.Why} {
		h.text(s)
	}
	h.texts(f.Routes)
}

func (h *hasher) route(_ string, r *l7.Route) { h.text(routeText(*r)) }

func (h *hasher) cluster(_ string, c *Cluster) { h.text(clusterText(*c)) }

func (h *hasher) keySet(_ string, k *l7.KeySet) {
	h.text(k.URI)
	h.text(k.JSON)
	h.number(uint64(k.Until))
}

func (h *hasher) gateway(_ GatewayKey, g *Gateway) { h.text(lineOf(g)) }

// routeText is all of a Route in one line. It has pointers, which only JSON
// follows.
func routeText(r l7.Route) string { return lineOf(r) }

// clusterText is all of a Cluster in one line.
func clusterText(c Cluster) string {
	return lineOf(struct {
		Service, Second ServiceKey
		Asked           bool
		Cluster         l7.Cluster
	}{c.Service, c.Second, c.Asked, c.Cluster})
}

func lineOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil { // a number that JSON does not know, which nobody lets in
		return err.Error()
	}
	return string(b)
}

func (h *hasher) request(m *policy.RequestMatch) {
	h.texts(m.Methods)
	for _, list := range [...][]policy.TextMatch{m.Paths, m.Hosts} {
		h.number(uint64(len(list)))
		for _, t := range list {
			h.match(t)
		}
	}
	h.named(m.Headers)
	h.number(uint64(len(m.GRPC)))
	for _, c := range m.GRPC {
		h.text(c.Service)
		h.text(c.Method)
	}
	h.flag(m.Token != nil)
	if t := m.Token; t != nil {
		h.text(t.Issuer)
		h.texts(t.Audiences)
		h.text(t.Keys)
		h.named(t.Claims)
	}
	h.flag(m.External != nil)
	if e := m.External; e != nil {
		h.text(e.Cluster)
		h.number(uint64(e.Timeout))
		h.number(uint64(e.Status))
		h.flag(e.Open)
	}
}

func (h *hasher) match(t policy.TextMatch) {
	h.number(uint64(t.Kind))
	h.text(t.Value)
}

func (h *hasher) named(all []policy.NamedMatch) {
	h.number(uint64(len(all)))
	for _, m := range all {
		h.text(m.Name)
		h.match(m.TextMatch)
		h.flag(m.Not)
	}
}
