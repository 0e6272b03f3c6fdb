package proxy

import (
	"cmp"
	stdtls "crypto/tls"
	"net/netip"
	"reflect"

	"moire.dev/moire/proxy/authz"
	"moire.dev/moire/proxy/mesh"
	"moire.dev/moire/proxy/route"
	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/proxy/tls"
	"moire.dev/moire/snapshot/l7"
)

// meshed is the mesh of a plan.
type meshed struct {
	*mesh.Table
	workloads []*workload // as in the Table
	domains   *tls.Domains
	keys      *authz.Keys
	mark      uint32
}

// workload is a Workload of a plan, and what it takes to speak for it.
type workload struct {
	*mesh.Workload
	// in and out are what its sockets are: limits and counters.
	in, out *listener
	// app is its own application, away what it calls where no Listener is.
	app, away *settings
	// enter and leave are the rules of what no route routes.
	enter, leave *rule
	// cert is what mutual shows; both nil: it has none that is good.
	cert   *stdtls.Certificate
	mutual *tls.Mutual
}

// unlimited are limits for connections of applications that do not know of a
// proxy: what they could do without one they still can. Who is gone is found by
// the kernel (keepalive).
var unlimited = l7.Limits{Stall: -1, MinRate: -1, Streams: 1000}

// patient are limits of a Listener, with those for what it does not say.
func patient(l l7.Limits) *l7.Limits {
	l.Stall, l.MinRate, l.Streams = cmp.Or(l.Stall, unlimited.Stall), cmp.Or(l.MinRate, unlimited.MinRate), cmp.Or(l.Streams, unlimited.Streams)
	return &l
}

// prepareMesh makes what of a mesh changes nothing that is served.
func (p *Proxy) prepareMesh(cfg *l7.Config, old *plan) (*meshed, error) {
	if cfg.Mesh == nil {
		return nil, nil
	}
	table, err := mesh.Build(cfg)
	if err != nil {
		return nil, err
	}
	m := &meshed{Table: table, mark: cfg.Mesh.Mark}
	var had *authz.Keys
	if old != nil && old.mesh != nil {
		had = old.mesh.keys
		if reflect.DeepEqual(old.conf.Mesh.Trusts, cfg.Mesh.Trusts) {
			m.domains = old.mesh.domains
		}
	}
	if m.domains == nil {
		if m.domains, err = tls.NewDomains(cfg.Mesh.Trusts); err != nil {
			return nil, err
		}
	}
	if m.keys, err = authz.NewKeys(cfg.Mesh.KeySets, had); err != nil {
		p.log.Warn("key sets", "error", err)
	}
	return m, nil
}

// completeMesh gives the Workloads of a plan what they share with those before.
func (p *Proxy) completeMesh(n, old *plan) error {
	if n.mesh == nil {
		return nil
	}
	for i, w := range n.mesh.Workloads {
		k := &workload{Workload: w}
		k.in, k.out = n.socket(w, telemetry.In), n.socket(w, telemetry.Out)
		var err error
		if k.app, err = p.roaming(n, w, telemetry.In); err != nil {
			return err
		}
		if k.away, err = p.roaming(n, w, telemetry.Out); err != nil {
			return err
		}
		k.enter, k.leave = n.through(w, telemetry.In), n.through(w, telemetry.Out)
		n.mesh.workloads = append(n.mesh.workloads, k)
		p.identify(n, old, i)
	}
	return nil
}

// socket is what stands for the listening sockets of one side of a Workload.
func (n *plan) socket(w *mesh.Workload, side telemetry.Side) *listener {
	conf := &l7.Listener{Name: w.String(), Protocol: l7.AutoHTTP}
	return &listener{index: -1, id: n.table.Socket(w.Index, side), conf: conf, limits: newLimits(&unlimited)}
}

// anywhere stands for the endpoint of such a cluster.
const anywhere = "0.0.0.0:0"

// roaming is a cluster whose endpoint is another with each connection.
func (p *Proxy) roaming(n *plan, w *mesh.Workload, side telemetry.Side) (*settings, error) {
	name := w.String() + map[telemetry.Side]string{telemetry.In: " app", telemetry.Out: " away"}[side]
	conf := &l7.Cluster{Name: name, Protocol: l7.TCP, Endpoints: []l7.Endpoint{{Address: anywhere}}, Circuit: l7.Circuit{Connections: -1, Pending: -1, Requests: -1}}
	s, err := p.cluster(name).settings(0, conf, nil, p.now(), nil)
	if err == nil {
		s.id, s.roams = n.table.End(w.Index, side), true
	}
	return s, err
}

// through is the rule of what is routed by nobody.
func (n *plan) through(w *mesh.Workload, side telemetry.Side) *rule {
	return &rule{Rule: &route.Rule{Route: &route.Route{}}, tel: n.table.Way(w.Index, side)}
}

// identify finds the certificate of a Workload. While it is the same and trust
// is, sessions are resumed.
func (p *Proxy) identify(n, old *plan, i int) {
	w := n.mesh.workloads[i]
	if w.Certificate == "" {
		return
	}
	cert, ok := p.secrets.store.Certificate(w.Certificate)
	if !ok {
		return
	}
	if old != nil && old.mesh != nil && old.mesh.domains == n.mesh.domains {
		if o := old.same(w.Workload); o != nil && o.cert == cert && o.SPIFFE == w.SPIFFE {
			w.cert, w.mutual = o.cert, o.mutual
			return
		}
	}
	m, err := tls.NewMutual(w.SPIFFE, cert, n.mesh.domains, p.secrets.known)
	if err != nil {
		p.log.Error("a Workload cannot say who it is; what needs that is refused", "workload", w.String(), "error", err)
		return
	}
	w.cert, w.mutual = cert, m
}

// workload is that of an address in a namespace; nil: there is none.
func (n *plan) workload(namespace string, address netip.Addr) *workload {
	if n.mesh == nil {
		return nil
	}
	if w := n.mesh.In(namespace, address); w != nil {
		return n.mesh.workloads[w.Index]
	}
	return nil
}

// same is what a Workload of an older plan is in this one; nil: it is no more.
func (n *plan) same(w *mesh.Workload) *workload {
	if n.mesh == nil {
		return nil
	}
	if now := n.mesh.Same(w); now != nil {
		return n.mesh.workloads[now.Index]
	}
	return nil
}
