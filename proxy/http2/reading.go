package http2

import (
	"moire.dev/moire/proxy/http2/hpack"
	"moire.dev/moire/proxy/message"
)

// what a block is.
type what uint8

const (
	readNothing what = iota // its fields do not matter
	readRequest
	readAnswer
	readTrailers
)

// reading is what is known of the head that is being decoded.
type reading struct {
	what    what
	seen    uint16 // pseudo-header fields, by bit
	regular bool   // a regular field came
	large   bool
	hasHost bool
	expect  bool // an expectation that nobody knows
	fault   string
	size    int
	length  int64 // Content-Length; -1: none
	host    []byte
	cookie  int      // where in Fields the cookie is; -1: none
	crumbs  [][]byte // its parts, if there are several
}

func (r *reading) start(w what) {
	*r = reading{what: w, length: -1, cookie: -1, crumbs: r.crumbs[:0]}
}

func (r *reading) has(p hpack.Pseudo) bool { return r.seen&(1<<p) != 0 }

// field takes one field into s, or says what is wrong with it in r.fault.
func (r *reading) field(s *Stream, f *hpack.Field, most int) {
	if f.Pseudo != hpack.Regular {
		r.fault = r.pseudo(&s.Head, f)
		return
	}
	r.regular = true
	if f.Faults != 0 {
		r.fault = "a field with an invalid name or value"
		return
	}
	switch f.ID {
	case message.Other:
		if lookalike(f.Name) {
			r.fault = "a field that looks like Content-Length or Transfer-Encoding"
			return
		}
	case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding, message.Upgrade:
		r.fault = "a field that belongs to HTTP/1 connections"
		return
	case message.HTTP2Settings:
		return
	case message.TE:
		if !equalFold(f.Value, "trailers") {
			r.fault = "TE with more than trailers"
		}
		s.Head.Trailers = r.what == readRequest
		return
	case message.ContentLength:
		n, ok := parseLength(f.Value)
		if !ok || r.length >= 0 || r.what == readTrailers {
			r.fault = "a wrong Content-Length"
		}
		r.length = n
		return
	case message.Host:
		if r.hasHost && r.what == readRequest || r.what == readTrailers {
			r.fault = "a wrong Host"
		}
		if r.what == readRequest {
			r.host, r.hasHost = f.Value, true
			return
		}
	case message.Expect:
		if r.what == readRequest {
			s.Head.Expect = equalFold(f.Value, "100-continue")
			r.expect = r.expect || !s.Head.Expect
			return
		}
	case message.Cookie:
		if r.crumb(s, f) {
			return
		}
	}
	to := &s.Head.Fields
	if r.what == readTrailers {
		if !fitTrailer(f.Name, f.ID) {
			return
		}
		to = &s.Trailers
	}
	if len(*to) >= most {
		r.large = true
		return
	}
	*to = append(*to, message.Field{Name: f.Name, Value: f.Value, ID: f.ID, Never: f.Never})
}

// crumb collects the parts of a cookie (RFC 9113, 8.2.3); it is true for every
// part but the first, which is a field.
func (r *reading) crumb(s *Stream, f *hpack.Field) bool {
	if r.what != readRequest {
		return false
	}
	if r.cookie < 0 {
		r.cookie = len(s.Head.Fields)
		return false
	}
	first := &s.Head.Fields[r.cookie]
	if len(r.crumbs) == 0 {
		r.crumbs = append(r.crumbs, first.Value)
	}
	first.Never = first.Never || f.Never
	r.crumbs = append(r.crumbs, f.Value)
	return true
}

// keptCrumbs is how much room for crumbs an idle connection keeps.
const keptCrumbs = 32

// joinCookies makes one field of several crumbs, and forgets them.
func (r *reading) joinCookies(s *Stream, arena []byte) []byte {
	if len(r.crumbs) > 0 && r.fault == "" && !r.large {
		at := len(arena)
		for i, crumb := range r.crumbs {
			if i > 0 {
				arena = append(arena, "; "...)
			}
			arena = append(arena, crumb...)
		}
		s.Head.Fields[r.cookie].Value = arena[at:len(arena):len(arena)]
	}
	clear(r.crumbs)
	if r.crumbs = r.crumbs[:0]; cap(r.crumbs) > keptCrumbs {
		r.crumbs = nil
	}
	return arena
}

func (r *reading) pseudo(h *message.Head, f *hpack.Field) string {
	switch {
	case f.Pseudo == hpack.Unknown:
		return "an unknown pseudo-header field"
	case r.regular:
		return "a pseudo-header field after other fields"
	case r.has(f.Pseudo):
		return "a pseudo-header field twice"
	case r.what == readTrailers:
		return "a pseudo-header field in trailers"
	case (f.Pseudo == hpack.Status) != (r.what == readAnswer):
		return "a pseudo-header field of the other direction"
	}
	r.seen |= 1 << f.Pseudo
	switch f.Pseudo {
	case hpack.Method:
		h.Method = f.Value
	case hpack.Scheme:
		h.Scheme = f.Value
	case hpack.Authority:
		h.Authority = f.Value
	case hpack.Path:
		h.Path = f.Value
	case hpack.Protocol:
		h.Upgrade = f.Value
	case hpack.Status:
		v := f.Value
		if len(v) != 3 || v[0] < '1' || v[0] > '5' || !digit(v[1]) || !digit(v[2]) {
			return "a wrong :status"
		}
		h.Status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
	}
	return ""
}

// request checks a request as a whole, and says what is wrong with it.
func (c *Conn) request(s *Stream, end bool) string {
	r, h := &c.reading, &s.Head
	h.Minor = 1
	if !r.has(hpack.Method) || !isToken(h.Method) {
		return "a missing or wrong :method"
	}
	connect := string(h.Method) == "CONNECT"
	extended := r.has(hpack.Protocol)
	switch {
	case extended && (!connect || !c.cfg.EnableConnect || !isToken(h.Upgrade)):
		return "a wrong :protocol"
	case connect && !extended:
		if r.has(hpack.Scheme) || r.has(hpack.Path) || !r.has(hpack.Authority) {
			return "CONNECT with a path or without an authority"
		}
	case string(h.Scheme) != "http" && string(h.Scheme) != "https":
		return "a missing or wrong :scheme"
	case !validPath(h):
		return "a missing or wrong :path"
	}
	if r.hasHost {
		if !r.has(hpack.Authority) {
			h.Authority = r.host
		} else if !equalFoldBytes(h.Authority, r.host) {
			return "Host is not :authority"
		}
	}
	if !validAuthority(h.Authority, connect && !extended) {
		return "a missing or wrong authority"
	}
	s.expect = r.length
	switch {
	case connect:
		if r.length >= 0 {
			return "CONNECT with a Content-Length"
		}
		h.Framing = message.None // what follows is the tunnel's
	case end && r.length > 0:
		return "less DATA than Content-Length says"
	case r.length >= 0:
		h.Framing, h.Length = message.Sized, r.length
	case end:
		h.Framing = message.None
	default:
		h.Framing = message.Chunked
	}
	return ""
}

// answerHead checks an answer as a whole, and says what is wrong with it.
func (c *Conn) answerHead(s *Stream, end bool) string {
	r, h := &c.reading, &s.Head
	h.Minor = 1
	switch {
	case h.Status == 0:
		return "a missing :status"
	case h.Status == 101:
		return "101, which HTTP/2 does not have"
	case h.Status < 200:
		if end || r.length > 0 {
			return "an interim answer with a body or an end"
		}
		h.Framing = message.None
		return ""
	}
	h.Length = r.length
	s.expect = r.length
	switch {
	case s.is(isConnect) && h.Status < 300:
		h.Framing, h.Length, s.expect = message.None, -1, -1 // what follows is the tunnel's
	case s.is(isHead) || h.Status == 304:
		h.Framing, s.expect = message.None, 0
	case h.Status == 204:
		h.Framing, h.Length, s.expect = message.None, -1, 0
	case end && r.length > 0:
		return "less DATA than Content-Length says"
	case end || r.length >= 0:
		h.Framing, h.Length = message.Sized, max(r.length, 0)
	default:
		h.Framing = message.Chunked
	}
	return ""
}

// requestFlags is what a stream has to remember of its request.
func requestFlags(h *message.Head) streamFlags {
	switch {
	case h.Upgrade != nil:
		return isConnect | isExtended
	case h.IsMethod("CONNECT"):
		return isConnect
	case h.IsMethod("HEAD"):
		return isHead
	}
	return 0
}
