package mesh

import (
	"net/netip"

	"moire.dev/moire/snapshot/policy"
)

// Leg is what the Set of one side says about a connection.
type Leg struct {
	// Verdict about its packets.
	policy.Verdict
	// Session decides about its requests; nil: the Verdict stands for all of them.
	Session *policy.Session
	// Paths: some rule compares paths, so nobody may read one in two ways.
	Paths bool
}

// Open says whether the connection may be: all of it, or some of its requests.
func (l *Leg) Open() bool { return l.Allow || l.Proxy }

// Leave is what w's Set says about a connection to somebody; nil: unknown.
func (w *Workload) Leave(p *Peer, to netip.AddrPort) Leg { return leg(w.Out, p, to.Addr(), to.Port()) }

// Enter is what w's Set says about a connection from somebody to a port of w;
// nil: unknown.
func (w *Workload) Enter(p *Peer, from netip.Addr, port uint16) Leg { return leg(w.In, p, from, port) }

func leg(d *policy.Decider, p *Peer, address netip.Addr, port uint16) Leg {
	packet := policy.Packet{PeerAddr: address, Protocol: policy.TCP, Port: port}
	if p != nil {
		packet.Peer = p.Number
	}
	l := Leg{Verdict: d.Decide(packet)}
	if l.Proxy {
		l.Session = d.Session(packet)
		for _, r := range l.Session.Rules() {
			for i := range r.Requests {
				l.Paths = l.Paths || len(r.Requests[i].Paths)+len(r.Requests[i].GRPC) > 0 || r.Requests[i].External != nil
			}
		}
	}
	return l
}
