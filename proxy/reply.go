package proxy

import (
	"strconv"

	"moire.dev/moire/proxy/message"
)

// reply answers without an endpoint: a status and a short text, or a gRPC
// status for a gRPC call. What was put into x.resp.Fields before goes with it.
func (x *exchange) reply(status int, text string) {
	switch {
	case x.answered:
		x.broken = true
		return
	case x.grpc:
		x.replying()
		x.replyGRPC(grpcOf(status), text)
		return
	}
	var body []byte
	if text != "" && status != 204 && status != 304 {
		x.resp.Add(contentType, textPlain)
		body = append(append(x.answers[:0], text...), '\n')
		x.answers = body
	}
	x.replyWith(status, body)
}

// replying makes an answer of x.resp, of which only the fields are there.
func (x *exchange) replying() *message.Head {
	fields := x.resp.Fields
	x.resp.Reset()
	x.resp.Fields = fields
	return &x.resp
}

// replyWith answers with exactly this body, and the fields that are in x.resp.
func (x *exchange) replyWith(status int, body []byte) {
	if x.answered {
		x.broken = true
		return
	}
	h := x.replying()
	h.Status = status
	switch {
	case status == 499 || status == 408 || status == 400 || status == 413:
		x.close = true
	}
	if status == 499 { // nobody reads it
		x.rec.Status = status
		x.broken = true
		return
	}
	if status == 204 || status == 304 {
		body = nil
	}
	h.Framing, h.Length = message.Sized, int64(len(body))
	x.writeHead()
	for !x.req.IsMethod("HEAD") && len(body) > 0 {
		if body = body[x.down.put(x.w, body, true):]; len(body) > 0 {
			x.down.starved()
			if x.wait() != nil {
				x.broken = true
				return
			}
		}
	}
	x.down.finish(x.w, nil)
}

var (
	contentType = []byte("content-type")
	textPlain   = []byte("text/plain; charset=utf-8")
	grpcContent = []byte("application/grpc")
	grpcStatus  = []byte("grpc-status")
	grpcMessage = []byte("grpc-message")
	grpcTimeout = []byte("grpc-timeout")
)

// replyGRPC answers a gRPC call with trailers only.
func (x *exchange) replyGRPC(code int, text string) {
	h := &x.resp
	h.Status = 200
	h.Add(contentType, grpcContent)
	x.answers = strconv.AppendInt(x.answers[:0], int64(code), 10)
	n := len(x.answers)
	x.answers = append(x.answers, text...)
	h.Add(grpcStatus, x.answers[:n:n])
	if text != "" {
		h.Add(grpcMessage, x.answers[n:])
	}
	x.rec.GRPC = code
	h.Framing, h.Length = message.None, -1
	x.writeHead()
	x.down.finish(x.w, nil)
}

// grpcOf is the gRPC status of an HTTP status, as the gRPC specification maps
// them, with RESOURCE_EXHAUSTED for what we limit.
func grpcOf(status int) int {
	switch status {
	case 400:
		return 13 // INTERNAL
	case 401:
		return 16 // UNAUTHENTICATED
	case 403:
		return 7 // PERMISSION_DENIED
	case 404:
		return 12 // UNIMPLEMENTED
	case 408, 504:
		return 4 // DEADLINE_EXCEEDED
	case 413, 429:
		return 8 // RESOURCE_EXHAUSTED
	case 499:
		return 1 // CANCELLED
	case 500, 502, 503:
		return 14 // UNAVAILABLE
	}
	return 2 // UNKNOWN
}
