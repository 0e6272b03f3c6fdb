package mesh

import (
	"cmp"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// world is an Input with what several parts ask for.
type world struct {
	in *Input
	s  *snapshot.Snapshot
	// known are the interfaces that the snapshot knows, with their endpoints.
	known  []known
	homes  map[snapshot.Addr]bool // addresses of these
	hosted map[snapshot.VNI]bool  // their Networks
	labels map[policy.Identity]map[string]string
}

type known struct {
	*Interface
	endpoint snapshot.Endpoint
}

func newWorld(in *Input) *world {
	w := &world{in: in, s: in.Snapshot, homes: map[snapshot.Addr]bool{}, hosted: map[snapshot.VNI]bool{}, labels: map[policy.Identity]map[string]string{}}
	for i := range in.Interfaces {
		e, ok := EndpointOf(in.Snapshot, &in.Interfaces[i])
		if !ok {
			continue
		}
		w.known = append(w.known, known{&in.Interfaces[i], e})
		w.hosted[e.Addr.VNI] = true
		for _, ip := range in.Interfaces[i].Addrs {
			w.homes[snapshot.Addr{VNI: e.Addr.VNI, IP: ip}] = true
		}
	}
	return w
}

// EndpointOf is the endpoint of the first address of an interface, if the
// snapshot knows all of them as what the interface says.
func EndpointOf(s *snapshot.Snapshot, i *Interface) (first snapshot.Endpoint, ok bool) {
	for n, ip := range i.Addrs {
		e, known := s.Endpoints[snapshot.Addr{VNI: i.VNI, IP: ip}]
		if !known || e.Node != s.Node || e.Project != i.Key.Project || e.Workload != i.Key.Workload {
			return first, false
		}
		if n == 0 {
			first = e
		}
	}
	_, ok = s.Networks[i.VNI]
	return first, ok && len(i.Addrs) > 0
}

func (w *world) workloads() []l7.Workload {
	ports := w.ports()
	var out []l7.Workload
	for _, k := range w.known {
		e := k.endpoint
		id := w.s.Identities[e.Identity]
		out = append(out, l7.Workload{
			Name: e.Project + "/" + e.Workload, Project: e.Project, Domain: id.Domain, Network: w.s.Networks[k.VNI].Name,
			VNI: uint32(k.VNI), Namespace: k.Namespace, Addresses: k.Addrs,
			Number: e.Identity, SPIFFE: id.SPIFFE, Labels: w.labelsOf(e.Identity), Mode: e.Mode.String(),
			Certificate: w.certificateOf(e), View: View(k.VNI, e.Project), Gateway: w.gateViewOf(k), Ports: portsOf(ports, k),
			Egress:  w.s.Policies[snapshot.PolicyKey{VNI: k.VNI, Identity: e.Identity, Direction: policy.Egress}],
			Ingress: w.s.Policies[snapshot.PolicyKey{VNI: k.VNI, Identity: e.Identity, Direction: policy.Ingress}],
		})
	}
	return out
}

// certificateOf is the name of the certificate of an endpoint; "": it needs
// none, or there is none yet.
func (w *world) certificateOf(e snapshot.Endpoint) string {
	id := w.s.Identities[e.Identity].SPIFFE
	if _, ok := w.in.Certificates[id]; !ok || e.Mode == snapshot.Off {
		return ""
	}
	return id
}

// certificates are those that the Workloads name, and those of Gateways.
func (w *world) certificates(of []l7.Workload) []l7.Certificate {
	used := map[string]l7.Certificate{}
	for i := range of {
		if name := of[i].Certificate; name != "" {
			c := w.in.Certificates[name]
			used[name] = l7.Certificate{Name: name, Chain: c.Chain, Key: c.Key}
		}
	}
	for _, k := range w.known {
		if g := gatewayAt(w.s, k.Interface); g != nil {
			for _, c := range g.Certificates {
				used[c.Name] = c
			}
		}
	}
	return sorted(used, func(c l7.Certificate) l7.Certificate { return c })
}

// labelsOf an identity as a map, one for all that share it.
func (w *world) labelsOf(n policy.Identity) map[string]string {
	if l, ok := w.labels[n]; ok {
		return l
	}
	var out map[string]string
	if all := w.s.Identities[n].Labels; len(all) > 0 {
		out = make(map[string]string, len(all))
		for _, l := range all {
			out[l.Key] = l.Value
		}
	}
	w.labels[n] = out
	return out
}

// ports says what is spoken on ports of these interfaces that Services lead to,
// where it was said.
func (w *world) ports() map[snapshot.Addr]map[uint16]l7.Protocol {
	out := map[snapshot.Addr]map[uint16]l7.Protocol{}
	for k, s := range w.s.Services {
		if s.App == "" || k.Protocol != policy.TCP || !w.hosted[k.Addr.VNI] {
			continue
		}
		for _, list := range [][]snapshot.Backend{s.Backends, s.Leaving} {
			for _, b := range list {
				if w.homes[b.Addr] {
					if out[b.Addr] == nil {
						out[b.Addr] = map[uint16]l7.Protocol{}
					}
					speak(out[b.Addr], cmp.Or(b.Port, k.Port), s.App)
				}
			}
		}
	}
	return out
}

// speak notes what is spoken on a port. Where Services disagree, bytes that are
// not looked at are always right.
func speak(ports map[uint16]l7.Protocol, port uint16, p l7.Protocol) {
	before, twice := ports[port]
	switch {
	case port == 0 || twice && before == p:
		return
	case twice && (before == l7.TCP || p == l7.TCP):
		p = l7.TCP
	case twice:
		p = l7.AutoHTTP
	}
	ports[port] = p
}

// portsOf an interface, of all its addresses.
func portsOf(all map[snapshot.Addr]map[uint16]l7.Protocol, k known) []l7.WorkloadPort {
	merged := map[uint16]l7.Protocol{}
	for _, ip := range k.Addrs {
		for port, p := range all[snapshot.Addr{VNI: k.VNI, IP: ip}] {
			speak(merged, port, p)
		}
	}
	var out []l7.WorkloadPort
	for _, port := range sortedKeys(merged) {
		out = append(out, l7.WorkloadPort{Port: port, Protocol: merged[port]})
	}
	return out
}
