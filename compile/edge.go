package compile

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
)

// edge is where a Gateway stands: a Workload that one node runs.
type edge struct {
	gateway *gateway.Gateway
	network Key
	node    string // "": none can
	// workload is what it is, as if somebody had declared it; nil: it cannot be.
	workload *v1alpha1.Workload
	// flaw is why it is not accepted, or stands nowhere.
	flaw *flaw
}

// workloadOf is the name of the Workload that a Gateway is.
func workloadOf(gateway string) string { return "gateway-" + gateway }

// ours says whether a Gateway is of a class that nodes run.
func (t *traffic) ours(g *gateway.Gateway) bool {
	if t.classes == nil { // nothing is known of classes
		return g.Spec.GatewayClassName == v1alpha1.GatewayClass
	}
	c := t.classes[string(g.Spec.GatewayClassName)]
	return c != nil && c.Spec.ControllerName == v1alpha1.GatewayController && c.Spec.ParametersRef == nil
}

// learnEdges finds where Gateways stand, and puts their Workloads to the declared
// ones. It comes after all else is learnt.
func (m *memory) learnEdges(in *Input) {
	t := &m.traffic
	for k := range t.edges {
		if g := in.Gateways[k]; g == nil || !t.ours(g) {
			m.stand(k, nil)
		}
	}
	for k, g := range in.Gateways {
		if t.ours(g) {
			m.stand(k, m.edgeOf(k, g))
		}
	}
}

// stand puts an edge in the place of the one before, and its Workload to the
// declared ones; what somebody declares under that name goes before.
func (m *memory) stand(k Key, now *edge) {
	t := &m.traffic
	old := t.edges[k]
	if old == now {
		return
	}
	if old != nil && now != nil && reflect.DeepEqual(old.workload, now.workload) {
		now.workload = old.workload
	}
	var before, after *v1alpha1.Workload
	if old != nil {
		before = old.workload
	}
	if now != nil {
		after = now.workload
	}
	if old == nil || now == nil || !reflect.DeepEqual(*old, *now) {
		put(t.edges, k, now)
		t.stale[targetKey{KindGateway, k}] = true
	}
	if before == after {
		return
	}
	w := Key{k.Project, workloadOf(k.Name)}
	put(t.stands, w, after)
	if m.workloads[w] == nil {
		put(m.touch(w.Project).workloads, w, after)
	}
	m.learnForeign(w, before, m.declared(w))
}

// declared is what is declared for a Workload, by people or because it is a
// Gateway; nil: nothing.
func (m *memory) declared(k Key) *v1alpha1.Workload {
	if w := m.workloads[k]; w != nil {
		return w
	}
	return m.traffic.stands[k]
}

const annotations = "metadata.annotations"

// edgeOf finds where a Gateway stands.
func (m *memory) edgeOf(k Key, g *gateway.Gateway) *edge {
	e := &edge{gateway: g}
	if e.network, e.flaw = m.networkFor(k, g); e.flaw == nil {
		e.flaw = unsupportedGateway(g)
	}
	if e.flaw != nil {
		return e
	}
	e.node = m.nodeFor(k, strings.FieldsFunc(g.Annotations[v1alpha1.NodesAnnotation], func(r rune) bool { return r == ',' || r == ' ' }))
	if old := m.traffic.edges[k]; old != nil && old.gateway == g && old.network == e.network && old.node == e.node && old.workload != nil {
		return old
	}
	w := e.asWorkload(k)
	bad := v1alpha1.ValidateWorkload(w)
	if i := slices.IndexFunc(bad, func(p v1alpha1.Problem) bool { return !p.Warning }); i >= 0 {
		e.flaw = &flaw{conditionAccepted, reasonParameters, gatewayFieldOf(bad[i].Field), bad[i].Reason, bad[i].Fix}
		return e
	}
	e.workload = w
	return e
}

// networkFor is the Network in which a Gateway stands.
func (m *memory) networkFor(k Key, g *gateway.Gateway) (Key, *flaw) {
	bad := func(text, fix string) (Key, *flaw) {
		return Key{}, &flaw{conditionAccepted, reasonParameters, annotations, text, fix}
	}
	ref := g.Annotations[v1alpha1.NetworkAnnotation]
	if ref == "" {
		var own []Key
		if b := m.buckets[k.Project]; b != nil {
			for n, o := range b.networks {
				if !o.Spec.External {
					own = append(own, n)
				}
			}
		}
		if len(own) != 1 {
			return bad(fmt.Sprintf("project %s has %d Networks, so it is not clear in which one the Gateway stands", k.Project, len(own)), "annotate it with "+v1alpha1.NetworkAnnotation+"=NETWORK")
		}
		ref = own[0].Name
	}
	network := networkOf(k.Project, ref)
	n, domain, mine := m.networks[network], m.projects[network.Project], m.projects[k.Project]
	switch w := (Key{k.Project, workloadOf(k.Name)}); {
	case mine == "":
		return bad("project "+k.Project+" belongs to no Domain", "label the namespace with "+v1alpha1.DomainLabel+"=<domain>")
	case n == nil || n.Spec.External:
		return bad("there is no Network "+network.String()+" in which a Gateway could stand", "create it, or correct the annotation "+v1alpha1.NetworkAnnotation)
	case !consents(n, domain, k.Project, mine, v1alpha1.ConsentAttach):
		return bad(noConsent(network, domain, k.Project, mine, v1alpha1.ConsentAttach), "")
	case m.workloads[w] != nil:
		return Key{}, &flaw{conditionAccepted, reasonParameters, "metadata.name", "somebody declares Workload " + w.String() + ", which the Gateway would be", "choose another name"}
	}
	return network, nil
}

// unsupportedGateway says what of a Gateway as a whole cannot be done; nil:
// nothing. It is refused: what would be left out may be what keeps callers away.
func unsupportedGateway(g *gateway.Gateway) *flaw {
	for i, a := range g.Spec.Addresses {
		if t := deref(a.Type); t != "" && t != gateway.IPAddressType || a.Value == "" {
			return &flaw{conditionAccepted, reasonAddress, fmt.Sprintf("spec.addresses[%d]", i), "only addresses of the Network can be chosen",
				"write an address of the Network of type IPAddress, or leave it out; from outside the Gateway is reached by a FloatingIP"}
		}
	}
	switch {
	case g.Spec.TLS != nil:
		return &flaw{conditionAccepted, reasonParameters, "spec.tls", "certificates of callers, and those that are shown to backends, are not supported", "remove it; say who may call in a Policy"}
	case g.Spec.Infrastructure != nil && g.Spec.Infrastructure.ParametersRef != nil:
		return &flaw{conditionAccepted, reasonParameters, "spec.infrastructure.parametersRef", "parameters of this kind are not supported", "remove it; there are annotations of moire.dev"}
	}
	return nil
}

// asWorkload is what a Gateway is as a Workload.
func (e *edge) asWorkload(k Key) *v1alpha1.Workload {
	g := e.gateway
	iface := v1alpha1.Interface{Network: e.network.Name}
	if e.network.Project != k.Project {
		iface.Network = e.network.String()
	}
	for _, a := range g.Spec.Addresses {
		iface.Addresses = append(iface.Addresses, a.Value)
	}
	w := &v1alpha1.Workload{ObjectMeta: metav1.ObjectMeta{Namespace: k.Project, Name: workloadOf(k.Name), Labels: map[string]string{}}}
	if i := g.Spec.Infrastructure; i != nil {
		for name, value := range i.Labels {
			w.Labels[string(name)] = string(value)
		}
	}
	w.Labels[v1alpha1.GatewayLabel] = k.Name
	w.Spec = v1alpha1.WorkloadSpec{Account: cmp.Or(g.Annotations[v1alpha1.AccountAnnotation], v1alpha1.DefaultAccount), Node: e.node,
		Interfaces: []v1alpha1.Interface{iface}, MTLS: cmp.Or(g.Annotations[v1alpha1.MTLSAnnotation], v1alpha1.MTLSPermissive)}
	return w
}

// gatewayFieldOf is a field of the Workload that a Gateway is, as people wrote it.
func gatewayFieldOf(field string) string {
	switch rest, of := strings.CutPrefix(field, "spec.interfaces[0].addresses"); {
	case of:
		return "spec.addresses" + rest
	case strings.HasPrefix(field, "metadata.labels"):
		return "spec.infrastructure.labels"
	case strings.HasPrefix(field, "metadata."):
		return field
	}
	return annotations
}

// gatewayProblems turns Problems of Workloads that are Gateways into theirs.
func (m *memory) gatewayProblems(all []v1alpha1.Problem) {
	for i := range all {
		project, name, _ := strings.Cut(strings.TrimPrefix(all[i].Object, "Workload "), "/")
		g, is := strings.CutPrefix(name, workloadOf(""))
		if is && m.workloads[Key{project, name}] == nil && m.traffic.stands[Key{project, name}] != nil {
			all[i].Object, all[i].Field = KindGateway+" "+project+"/"+g, gatewayFieldOf(all[i].Field)
		}
	}
}

// nodeFor is the node that runs a Gateway: the one that does, while it may, and
// of several the last that began; else one that depends on the names alone. "":
// none can.
func (m *memory) nodeFor(k Key, allowed []string) string {
	may := func(name string) bool {
		h := m.hosts[name]
		return h.exists && !h.external && h.numbered && !m.away[name] && (len(allowed) == 0 || slices.Contains(allowed, name))
	}
	self := workloadOf(k.Name)
	best, since := "", time.Time{}
	if b := m.buckets[k.Project]; b != nil {
		for node, list := range b.attachments {
			for _, a := range list {
				if a.Workload == self && may(node) && (best == "" || a.Since.After(since) || a.Since.Equal(since) && node < best) {
					best, since = node, a.Since
				}
			}
		}
	}
	if best != "" {
		return best
	}
	most := uint64(0)
	for name := range m.hosts {
		if !may(name) {
			continue
		}
		sum := fnv.New64a()
		_, _ = sum.Write([]byte(name + " " + k.String())) // it never fails
		if weight := sum.Sum64(); best == "" || weight > most || weight == most && name < best {
			best, most = name, weight
		}
	}
	return best
}
