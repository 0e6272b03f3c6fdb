package proxy

import (
	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/http1"
	"moire.dev/moire/proxy/message"
)

// result is how the endpoint is judged by the head of its answer.
func (x *exchange) result() balance.Result {
	if x.grpc {
		if code, ok := grpcCode(&x.resp); ok {
			x.rec.GRPC = code
			return balance.OfGRPC(code)
		}
	}
	return balance.OfStatus(x.resp.Status)
}

// grpcCode reads grpc-status.
func grpcCode(h *message.Head) (int, bool) {
	v, ok := h.Get(message.GRPCStatus)
	if !ok || len(v) == 0 || len(v) > 3 {
		return 0, false
	}
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// grpcStatus takes the status from the trailers, when the head had none.
func (x *exchange) grpcStatus() {
	if x.rec.GRPC >= 0 {
		return
	}
	if t := x.won.up.trailers; t != nil {
		if code, ok := grpcCode(t); ok {
			x.rec.GRPC = code
		}
	}
}

// interim passes on a 1xx answer.
func (x *exchange) interim() {
	switch {
	case x.live > 1 || x.copyOf != nil: // of hedged tries none has won yet
	case x.down2 != nil:
		x.down2.interim(&x.resp)
	case x.req.Minor == 1:
		x.resp.Framing, x.resp.Length, x.resp.Close = message.None, -1, false
		x.w.scratch = http1.AppendResponse(x.w.scratch[:0], &x.resp)
		if len(x.w.scratch) <= x.down.c.Room() { // who does not read does without
			x.down.c.Write(x.w.scratch)
		}
	}
}

// sendHead sends the head of the endpoint's answer to the caller.
func (x *exchange) sendHead() {
	ok := x.resp.Status >= 200 && x.resp.Status < 300
	if ok && x.upgrade != nil && x.won.up.two != nil {
		x.switchProtocols(&x.resp)
	}
	x.tunnel = x.resp.Status == 101 || ok && x.req.IsMethod("CONNECT")
	if x.tunnel {
		x.beginTunnel()
	}
	x.changeAnswer()
	x.writeHead()
}

// beginTunnel: from here on both sides are bytes until their end.
func (x *exchange) beginTunnel() {
	a := x.won
	x.down.framing, x.down.out, x.down.ended, x.down.finished = raw, raw, false, false
	a.up.framing, a.up.out, a.up.ended, a.up.finished = raw, raw, false, false
	x.down.tunnel, a.up.tunnel = true, true
	x.down.most = 0
	x.by = 0
	x.close = true
}

// writeHead writes x.resp to the caller, whoever made it.
func (x *exchange) writeHead() {
	h := &x.resp
	x.answered = true
	x.rec.Status = h.Status
	if x.down2 != nil {
		x.writeHead2()
		return
	}
	if x.down1.leaving() || x.req.Expect && x.down.read == 0 && !x.down.ended {
		x.close = true // also when the caller waits for a 100 that does not come
	}
	noBody := h.Status < 200 || h.Status == 204 || h.Status == 304 || x.req.IsMethod("HEAD") || x.tunnel
	switch {
	case noBody:
		h.Framing = message.None
	case h.Framing == message.None:
		h.Framing, h.Length = message.Sized, 0
	case h.Framing == message.Sized && x.req.Minor == 1 && x.won != nil && x.won.up.two != nil && trails(h):
		h.Framing = message.Chunked
	case h.Framing == message.Chunked && x.req.Minor == 0:
		h.Framing, x.close = message.UntilClose, true
	case h.Framing == message.UntilClose && x.req.Minor == 1:
		h.Framing = message.Chunked
	case h.Framing == message.UntilClose:
		x.close = true
	}
	if !x.tunnel {
		x.down.out = h.Framing
	}
	framing := h.Framing
	if x.tunnel && h.Status != 101 {
		h.Upgrade = nil
	}
	shut := h.Close
	h.Close, h.Minor = x.close && !x.tunnel, x.req.Minor
	x.w.scratch = http1.AppendResponse(x.w.scratch[:0], h)
	x.down.c.Write(x.w.scratch)
	h.Close, h.Framing = shut, framing
}

// trails says whether trailers are announced: HTTP/1.1 can carry them behind
// chunks only, HTTP/2 behind a known length, too.
func trails(h *message.Head) bool {
	_, ok := h.Get(message.Trailer)
	return ok
}
