package http1

import "moire.dev/moire/proxy/message"

// Check says whether h, a request or an answer that did not come from this
// codec or was changed since, may be written: nothing in it starts a line of
// its own, frames a message or names a host in a second way. What a parser of
// this package took passes; the error is what the parser would say.
func Check(h *message.Head) error {
	if h.Status == 0 {
		if err := checkRequest(h); err != nil {
			return err
		}
	}
	if h.Upgrade != nil && !token(h.Upgrade) && !slashed(h.Upgrade) {
		return ErrConnection
	}
	return CheckFields(h.Fields)
}

func checkRequest(h *message.Head) error {
	if _, ok := h.Get(message.Host); ok {
		return ErrHostTwice
	}
	switch {
	case !token(h.Method):
		return ErrMethod
	case len(h.Authority) > 0 && !authority(h.Authority):
		return ErrAuthority
	case len(h.Path) == 0:
		if !h.IsMethod("CONNECT") || len(h.Authority) == 0 {
			return ErrTarget
		}
	case span(h.Path, 0, isTarget) != len(h.Path):
		return ErrTarget
	case h.Path[0] != '/' && (string(h.Path) != "*" || !h.IsMethod("OPTIONS")):
		return ErrTarget
	}
	return nil
}

// CheckFields is Check for trailers.
func CheckFields(fields []message.Field) error {
	for i := range fields {
		f := &fields[i]
		if len(f.Name) == 0 || text(f.Value, 0) != len(f.Value) {
			return ErrFieldValue
		}
		for _, c := range f.Name {
			if lower[c] != c || c == 0 {
				return ErrFieldName
			}
		}
		switch message.Identify(f.Name) {
		case message.TransferEncoding, message.ContentLength, message.Connection, message.Upgrade,
			message.KeepAlive, message.ProxyConnection, message.TE, message.HTTP2Settings:
			return ErrConnection
		case message.Other:
			if lookalike(f.Name) {
				return ErrLookalike
			}
		}
	}
	return nil
}
