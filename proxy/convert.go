package proxy

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"

	"moire.dev/moire/proxy/message"
)

// WebSocket's handshake differs between HTTP/1.1 (RFC 6455) and HTTP/2 (RFC
// 8441): here one becomes the other. Everything else that differs is in Framing.

var (
	methodGet    = []byte("GET")
	websocketKey = []byte("sec-websocket-key")
	webAccept    = []byte("sec-websocket-accept")
)

const websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// toHTTP1 makes an extended CONNECT a GET with Upgrade.
func (x *exchange) toHTTP1(h *message.Head) {
	if h.Upgrade == nil || !h.IsMethod("CONNECT") {
		return
	}
	h.Method = methodGet
	h.Framing, h.Length = message.None, -1
	x.extended = true
	if _, keyed := h.Lookup(string(websocketKey)); keyed {
		x.keyed = true // it need not, but it may, and then it wants the answer to it
		return
	}
	var raw [16]byte
	binary.LittleEndian.PutUint64(raw[:8], x.w.random())
	binary.LittleEndian.PutUint64(raw[8:], x.w.random())
	h.Add(websocketKey, base64.StdEncoding.AppendEncode(nil, raw[:]))
}

// acceptConnect makes a 101 the 200 that answers an extended CONNECT.
func (x *exchange) acceptConnect(h *message.Head) {
	h.Status = 200
	if !x.keyed {
		h.Remove(string(webAccept))
	}
	h.Framing, h.Length = message.Chunked, -1
}

// askConnect makes an Upgrade ready for an extended CONNECT and remembers what
// its answer needs.
func (x *exchange) askConnect(h *message.Head) {
	key, ok := h.Lookup(string(websocketKey))
	if ok {
		sum := sha1.Sum(append(append([]byte(nil), key...), websocketGUID...))
		x.accept = base64.StdEncoding.AppendEncode(nil, sum[:])
		h.Remove(string(websocketKey))
	}
	x.upgrade = h.Upgrade
}

// switchProtocols makes the 200 of an extended CONNECT the 101 that its
// HTTP/1.1 caller waits for.
func (x *exchange) switchProtocols(h *message.Head) {
	h.Status, h.Upgrade = 101, x.upgrade
	h.Framing, h.Length = message.None, -1
	if x.accept != nil {
		h.Add(webAccept, x.accept)
	}
}
