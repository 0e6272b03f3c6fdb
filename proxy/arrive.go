package proxy

import (
	"slices"

	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/proxy/tls"
)

// manner is how a caller is expected to begin.
type manner uint8

const (
	plainly  manner = iota // as its application speaks
	secretly               // with the TLS of the mesh
	either                 // nobody knows: its first bytes say, or that there are none
)

// How long a caller of which it is not known how it begins is waited for,
// nanoseconds: one that nobody has heard of yet, and one of the mesh that may not
// know yet that we are in it. TLS comes at once.
const (
	strangerPatience = int64(100e6)
	meshPatience     = int64(1e9)
)

// enter is for a connection that comes to a Workload. The network says who calls.
func (g *greeting) enter() {
	f := g.flow
	f.peer = g.plan.mesh.Peer(f.work.VNI, g.peer.Addr())
	f.leg = f.work.Enter(f.peer, g.peer.Addr(), g.local.Port())
	patience := g.ln.limits.handshake
	switch {
	case !f.leg.Open():
		g.refuse(f.leg.Verdict, telemetry.NoDrop)
		return
	case !f.work.Meshed:
	case f.peer == nil:
		g.manner, patience = either, strangerPatience
	case f.peer.Mesh && f.work.Strict:
		g.manner = secretly
	case f.peer.Mesh:
		g.manner, patience = either, meshPatience
	case f.work.Strict:
		g.refuse(f.leg.Verdict, telemetry.NotInMesh)
		return
	}
	g.admitted(patience)
	g.advance()
}

// arrive goes on with it as far as the bytes that came allow.
func (g *greeting) arrive() {
	switch g.manner {
	case either:
		g.listenFirst()
	case secretly:
		if !g.shook {
			g.handshakeMesh()
			return
		}
		g.receive(g.alpn)
	default:
		g.receive("")
	}
}

// listenFirst looks for the ClientHello of a proxy of the mesh: no application's
// is taken for one.
func (g *greeting) listenFirst() {
	hello, err := tls.PeekHello(g.c.In.Bytes())
	switch {
	case err == tls.ErrMore && !g.c.EOF && !g.c.Broken():
		return
	case err == nil && slices.Contains(hello.Protocols, tls.Raw):
		g.manner = secretly
		g.w.loop.Arm(&g.timer, g.w.loop.Now+max(g.ln.limits.handshake, 1), g)
		g.handshakeMesh()
	default:
		g.takePlain()
	}
}

// takePlain goes on with a caller that does not speak the TLS of the mesh.
func (g *greeting) takePlain() {
	if g.flow.work.Strict {
		g.refuse(g.flow.leg.Verdict, telemetry.NotInMesh)
		return
	}
	g.manner = plainly
	g.receive("")
}

// handshakeMesh begins TLS with a proxy of the mesh.
func (g *greeting) handshakeMesh() {
	if g.layer != nil {
		g.layer.wake()
		return
	}
	work := g.flow.work
	if work.mutual == nil {
		g.refuse(g.flow.leg.Verdict, telemetry.NoCertificate)
		return
	}
	g.layer = shake(g.c, tls.ServerFilter(work.mutual.Server(g.carries()), g.peer.String()), g.shakenMesh)
}

// shakenMesh goes on after the handshake: it has to be who is at that address.
// Of one that nobody has heard of all that is known is that it is believed.
func (g *greeting) shakenMesh(err error) {
	if g.c.Closed() {
		return
	}
	w, f := g.w, g.flow
	if err != nil {
		w.tel.AddListener(g.plan.table, g.ln.id, telemetry.TLSFailures, 1)
		w.p.log.Debug("TLS handshake of the mesh failed", "workload", f.work.String(), "peer", g.peer, "error", err)
		g.refuse(f.leg.Verdict, telemetry.BadTLS)
		return
	}
	w.tel.AddListener(g.plan.table, g.ln.id, telemetry.Handshakes, 1)
	facts := g.layer.Facts()
	if facts.Resumed {
		w.tel.AddListener(g.plan.table, g.ln.id, telemetry.Resumptions, 1)
	}
	g.secure, g.shook, g.identity = true, true, []byte(facts.Peer)
	if f.peer != nil && f.peer.SPIFFE != facts.Peer {
		w.p.log.Warn("a caller is not who is at its address", "workload", f.work.String(), "peer", g.peer, "is", f.peer.SPIFFE, "says", facts.Peer)
		g.refuse(f.leg.Verdict, telemetry.WrongIdentity)
		return
	}
	if f.one = facts.Protocol == tls.Streams1; f.one || facts.Protocol == tls.Streams {
		g.alpn = "h2"
	}
	g.receive(g.alpn)
}

// receive goes on with what the caller's application says.
func (g *greeting) receive(alpn string) {
	if !g.flow.leg.Open() { // since it came
		g.refuse(g.flow.leg.Verdict, telemetry.NoDrop)
		return
	}
	if g.flow.gate() {
		g.pass()
		return
	}
	g.protocol = g.flow.work.spoken(g.local.Port(), g.flow.leg)
	g.speak(alpn)
}
