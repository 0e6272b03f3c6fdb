package http1

import "moire.dev/moire/proxy/message"

// ParseResponse reads b, exactly one answer head with its empty line, into h,
// which is reset. Method is that of the request: an answer to HEAD has no body,
// and after a 2xx to CONNECT come the bytes of a tunnel. The error is an
// *Error; its status is for records, the caller's caller gets 502.
func ParseResponse(b []byte, h *message.Head, l *Limits, method []byte) error {
	h.Reset()
	if l.Head > 0 && len(b) > l.Head {
		return ErrHeadTooLarge
	}
	if len(b) < 4 || b[len(b)-1] != '\n' {
		return ErrEnd
	}
	i, err := statusLine(b, h)
	if err != nil {
		return err
	}
	f := facts{length: -1}
	if err := fields(b, i, h, l, &f, answer); err != nil {
		return err
	}
	if f.named {
		unnamed(h)
	}
	return f.frameAnswer(h, method)
}

// statusLine reads HTTP/1.x code [reason]; the reason is not kept. A space
// after the code may be missing when there is no reason.
func statusLine(b []byte, h *message.Head) (i int, err error) {
	if h.Minor, err = version(b); err != nil {
		if err == ErrRequestLine {
			err = ErrStatusLine
		}
		return 0, err
	}
	const code = len("HTTP/1.1 ")
	if len(b) < code+5 || b[code-1] != ' ' {
		return 0, ErrStatusLine
	}
	for _, c := range b[code : code+3] {
		if c < '0' || c > '9' {
			return 0, ErrStatusLine
		}
		h.Status = h.Status*10 + int(c-'0')
	}
	i = code + 3
	if b[i] == ' ' {
		i = text(b, i)
	}
	if b[i] != '\r' || b[i+1] != '\n' {
		return 0, ErrStatusLine
	}
	if h.Status < 100 || h.Status > 599 {
		return 0, ErrStatus
	}
	return i + 2, nil
}

// frameAnswer decides how the body ends and what becomes of the connection
// (RFC 9112 6.3).
func (f *facts) frameAnswer(h *message.Head, method []byte) error {
	switch {
	case f.chunked && f.length >= 0:
		return ErrCodingAndLength
	case f.chunked && h.Minor == 0:
		return ErrCodingVersion
	}
	h.Close = f.close || h.Minor == 0 && !f.keep
	if h.Status == 101 || h.Status == 426 {
		h.Upgrade = f.protocol
	}
	switch {
	case h.Status < 200:
		h.Close = f.close
		if f.chunked || f.length > 0 || h.Status == 101 && (!f.upgrade || h.Upgrade == nil) {
			return ErrInterim
		}
	case h.Status < 300 && string(method) == "CONNECT":
		// What it says of a body is to be ignored, RFC 9110 9.3.6.
	case h.Status == 204:
		// A server that announces a body may send one, which nobody must take
		// for the next answer.
		h.Close = h.Close || f.chunked || f.length > 0
	case h.Status == 304, string(method) == "HEAD":
		h.Length = f.length
	case f.chunked:
		h.Framing = message.Chunked
	case f.length >= 0:
		h.Framing, h.Length = message.Sized, f.length
	default:
		h.Framing, h.Close = message.UntilClose, true
	}
	return nil
}
