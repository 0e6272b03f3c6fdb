package mesh

import (
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot"
)

// gatewayAt is the Gateway that an interface is; nil: it is none.
func gatewayAt(s *snapshot.Snapshot, at *Interface) *snapshot.Gateway {
	if !at.Gateway {
		return nil
	}
	for _, g := range s.Gateways {
		if g.Attachment == at.Key {
			return &g
		}
	}
	return nil
}

// Ports are those at which an interface takes connections as a Gateway; none: it is
// none, or takes none.
func Ports(s *snapshot.Snapshot, at *Interface) (ports []uint16) {
	g := gatewayAt(s, at)
	if g == nil {
		return nil
	}
	for i := range g.Listeners {
		if port := g.Listeners[i].Port(); !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return ports
}

// gateView names the Listeners of a Gateway.
func gateView(vni snapshot.VNI, g *snapshot.Gateway) string {
	return View(vni, g.Project) + "/Gateway/" + g.Name
}

func (w *world) gateViewOf(k known) string {
	if g := gatewayAt(w.s, k.Interface); g != nil {
		return gateView(k.VNI, g)
	}
	return ""
}

// gateways makes the Listeners of the Gateways that are here, at each of their
// addresses.
func (s *services) gateways() {
	for _, k := range s.w.known {
		g := gatewayAt(s.w.s, k.Interface)
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
