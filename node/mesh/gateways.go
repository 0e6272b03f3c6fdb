package mesh

import (
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot"
)

// gatewayAt is the Gateway that an interface is; nil: it is none.
func gatewayAt(s *snapshot.Snapshot, k snapshot.AttachmentKey) *snapshot.Gateway {
	for _, g := range s.Gateways {
		if g.Attachment == k {
			return &g
		}
	}
	return nil
}

// GatewayPorts are the ports at which an interface takes connections as a Gateway.
// Not ok: it is none.
func GatewayPorts(s *snapshot.Snapshot, k snapshot.AttachmentKey) (ports []uint16, ok bool) {
	g := gatewayAt(s, k)
	if g == nil {
		return nil, false
	}
	for i := range g.Listeners {
		if port := g.Listeners[i].Port(); !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return ports, true
}

// gateView names the Listeners of a Gateway.
func gateView(vni snapshot.VNI, g *snapshot.Gateway) string {
	return View(vni, g.Project) + "/Gateway/" + g.Name
}

func (w *world) gateViewOf(k known) string {
	if g := gatewayAt(w.s, k.Key); g != nil {
		return gateView(k.VNI, g)
	}
	return ""
}

// gateways makes the Listeners of the Gateways that are here, at each of their
// addresses.
func (s *services) gateways() {
	for _, k := range s.w.known {
		g := gatewayAt(s.w.s, k.Key)
		if g == nil {
			continue
		}
		for i := range g.Listeners {
			for _, ip := range k.Addrs {
				l := g.Listeners[i].Listener
				l.Address, l.View = netip.AddrPortFrom(ip, g.Listeners[i].Port()).String(), gateView(k.VNI, g)
				l.Name += "@" + ip.String()
				s.listeners = append(s.listeners, l)
				for _, name := range g.Listeners[i].Routes {
					if _, known := s.w.s.Routes[name]; known {
						s.at[name] = append(s.at[name], l.Name)
					}
				}
			}
		}
	}
}
