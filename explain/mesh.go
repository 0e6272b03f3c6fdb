package explain

import (
	"fmt"
	"slices"
	"strings"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Ids of verdicts of proxies, and of the kernel about plain bytes, that no
// Policy made. Records tell them as drop reasons, or by their status.
const (
	NotInMesh  policy.RuleID = "closed/not-in-mesh"
	NoRule     policy.RuleID = "closed/no-rule"     // 404
	BadRequest policy.RuleID = "closed/bad-request" // 400
)

// Who decides.
const (
	ByKernel = "ebpf"
	ByProxy  = "proxy"
)

// Mesh is what proxies have to do with the packet or request.
type Mesh struct {
	// SourceMode and DestinationMode: off, permissive or strict.
	SourceMode      string `json:"sourceMode,omitempty"`
	DestinationMode string `json:"destinationMode,omitempty"`
	// TLS: the proxies of both ends speak TLS 1.3 with each other.
	TLS bool `json:"tls,omitempty"`
	// Proxies that it needs, and why.
	Proxies []Proxy `json:"proxies,omitempty"`
	// Route and Rule that took the request, Cluster that was chosen among Shares.
	Route   string  `json:"route,omitempty"`
	Rule    string  `json:"rule,omitempty"`
	Cluster string  `json:"cluster,omitempty"`
	Shares  []Share `json:"shares,omitempty"`
	// Path and Host as the endpoint gets them.
	Path string `json:"path,omitempty"`
	Host string `json:"host,omitempty"`
	// Status that a proxy answers by itself; 0: it does not.
	Status int `json:"status,omitempty"`
}

// Proxy is one that is needed.
type Proxy struct {
	Side string   `json:"side"` // source or destination
	Node string   `json:"node,omitempty"`
	Why  []string `json:"why"`
}

// Share is one backend of a rule of a route.
type Share struct {
	Cluster string  `json:"cluster"`
	Percent float64 `json:"percent"`
}

// mesh of the Answer.
func (p *path) mesh() *Mesh {
	if p.Answer.Mesh == nil {
		p.Answer.Mesh = &Mesh{}
	}
	return p.Answer.Mesh
}

// needs notes why a proxy is needed at an end.
func (p *path) needs(side string, e snapshot.Endpoint, why string) {
	if why == string(unseen) {
		why = "Policies that are not yours to see"
	}
	m := p.mesh()
	i := slices.IndexFunc(m.Proxies, func(x Proxy) bool { return x.Side == side })
	if i < 0 {
		m.Proxies = append(m.Proxies, Proxy{Side: side, Node: p.hide(e)})
		i = len(m.Proxies) - 1
	}
	if !slices.Contains(m.Proxies[i].Why, why) {
		m.Proxies[i].Why = append(m.Proxies[i].Why, why)
	}
}

// Sides of a proxy.
const (
	AtSource      = "source"
	AtDestination = "destination"
)

const bothMeshed = "both ends are in the mesh"

// meet is what the two ends say about who may speak plain bytes, and which
// proxies they need. False: what comes is refused, and the Answer says why.
func (p *path) meet(a *arrival, out, in leg) bool {
	if !p.gate(a) {
		p.EgressRule = out.Rule
		return false
	}
	if p.protocol != policy.TCP {
		return true
	}
	peer, own := snapshot.Off, snapshot.Off
	if s := p.snaps[a.own.Node]; s != nil {
		peer, own = s.Endpoints[a.peerRow].Mode, s.Endpoints[a.own.Addr].Mode
	}
	if a.stranger {
		peer = snapshot.Off
	}
	if peer != snapshot.Off || own != snapshot.Off {
		m := p.mesh()
		m.SourceMode, m.TLS = peer.String(), peer != snapshot.Off && own != snapshot.Off
		if p.sees(a.own.Project) {
			m.DestinationMode = own.String()
		}
	}
	if own == snapshot.Strict && peer == snapshot.Off {
		why := fmt.Sprintf("%s is strict, and takes no plain bytes; %s is not in the mesh", p.who(a.own), p.whoIs(a))
		p.step(Step{Name: StepMesh, Result: ResultDeny, Node: p.hide(a.own), Rule: NotInMesh, Text: why})
		p.EgressRule, p.IngressRule, p.Direction, p.Tier = out.Rule, NotInMesh, policy.Ingress.String(), ""
		p.Decides = ByKernel
		p.deny(NotInMesh, why)
		return false
	}
	both := peer != snapshot.Off && own != snapshot.Off
	if both {
		p.needs(AtSource, p.src, bothMeshed)
		p.needs(AtDestination, a.own, bothMeshed)
	}
	if out.Proxy {
		p.needs(AtSource, p.src, string(out.asks))
	}
	if in.Proxy {
		p.needs(AtDestination, a.own, string(in.asks))
	}
	if m := p.Answer.Mesh; m != nil && len(m.Proxies) > 0 {
		p.step(Step{Name: StepMesh, Result: ResultOK, Text: p.between(a, both)})
	}
	return true
}

// refusedAtSource: nothing is let out. True: by the source's proxy, to which
// the kernel leads what is for one that is in the mesh too, whatever rules say.
func (p *path) refusedAtSource(r *route, out leg) bool {
	if p.protocol != policy.TCP {
		return false
	}
	if out.Proxy {
		p.needs(AtSource, p.src, string(out.asks))
	}
	if both := p.src.Mode != snapshot.Off && r.row.Mode != snapshot.Off && !r.seen.IsValid(); both { // who is seen as a Service is as outside
		p.needs(AtSource, p.src, bothMeshed)
	} else if !out.Proxy && !p.fronted {
		return false
	}
	p.step(Step{Name: StepMesh, Result: ResultOK, Text: p.parts(nil)})
	return true
}

// whoIs names the other side of an arrival.
func (p *path) whoIs(a *arrival) string {
	if p.src.Workload == "" {
		return a.peer.String()
	}
	return p.who(p.src)
}

// between says how the proxies speak.
func (p *path) between(a *arrival, both bool) string {
	if !both {
		return p.parts(a) + "; plain bytes between the two"
	}
	text := p.parts(a) + fmt.Sprintf("; TLS 1.3 to %s", at(p.dst, p.port))
	if from, to := p.end(p.src).Identity, p.end(a.own).Identity; from != "" && to != "" {
		text += fmt.Sprintf(", from %s to %s", from, to)
	}
	return text
}

// parts lists the proxies that take part.
func (p *path) parts(a *arrival) string {
	var out []string
	for _, x := range p.Answer.Mesh.Proxies {
		whose := p.who(p.src)
		if x.Side == AtDestination {
			whose = p.who(a.own)
		}
		out = append(out, fmt.Sprintf("the proxy of %s takes part: %s", whose, strings.Join(x.Why, ", ")))
	}
	return strings.Join(out, "; ")
}
