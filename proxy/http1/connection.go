package http1

import (
	"bytes"

	"moire.dev/moire/proxy/message"
)

// maxOptions of all Connection fields, so that what they name times the fields
// of a head stays small.
const maxOptions = 32

// connection takes in a Connection field, whose options it turns to lower case.
// Ordinary: the field names others and has to be looked at again by unnamed,
// when all fields are known.
func (f *facts) connection(value []byte) (ordinary bool, err error) {
	for rest := value; rest != nil; {
		var option []byte
		option, rest = element(rest)
		for i, c := range option {
			if lower[c] == 0 {
				return false, ErrConnection
			}
			option[i] = lower[c]
		}
		if f.options++; f.options > maxOptions {
			return false, ErrConnection
		}
		switch string(option) {
		case "": // an empty element says nothing, RFC 9110 5.6.1.2
		case "close":
			f.close = true
		case "keep-alive":
			f.keep = true
		case "upgrade":
			f.upgrade = true
		case "te", "http2-settings", "proxy-connection":
			// These never pass, named or not.
		case "host", "content-length", "transfer-encoding", "content_length", "transfer_encoding":
			return false, ErrConnection
		default:
			ordinary = true
		}
	}
	f.named = f.named || ordinary
	return ordinary, nil
}

// unnamed removes Connection from h, and what it names (RFC 9110 7.6.1). A
// sender must not name a field that is meant for the end; who does so anyway
// wants us to strip what others rely on (who calls, from where, what is asked),
// so such an option is ignored and the field stays.
func unnamed(h *message.Head) {
	for i := range h.Fields {
		if h.Fields[i].ID != message.Connection {
			continue
		}
		for rest := h.Fields[i].Value; rest != nil; {
			var option []byte
			option, rest = element(rest)
			if len(option) == 0 || message.Identify(option) != message.Other || protected(option) {
				continue
			}
			for j := range h.Fields {
				if bytes.Equal(h.Fields[j].Name, option) {
					h.Fields[j].Name = nil
				}
			}
		}
	}
	kept := h.Fields[:0]
	for _, field := range h.Fields {
		if field.Name != nil && field.ID != message.Connection {
			kept = append(kept, field)
		}
	}
	h.Fields = kept
}

// protected: names, beside those of package message, that no Connection strips.
func protected(name []byte) bool {
	for _, prefix := range [...]string{"x-forwarded-", "x-moire-", "l5d-", "x-real-ip", "proxy-auth", "content-", "cache-control", "sec-"} {
		if len(name) >= len(prefix) && string(name[:len(prefix)]) == prefix {
			return true
		}
	}
	return false
}

// protocol is the first of an Upgrade's protocols that can be asked for here;
// nil: none. Cleartext HTTP/2 is spoken by its preface or not at all.
func protocol(value []byte) []byte {
	for rest := value; rest != nil; {
		var p []byte
		p, rest = element(rest)
		if !token(p) && !slashed(p) {
			continue
		}
		if fold(p, "h2c") || fold(p, "h2") || fold(p, "http/2.0") || fold(p, "http/2") {
			continue
		}
		return p
	}
	return nil
}

// slashed says whether p is token/token, as in TLS/1.0.
func slashed(p []byte) bool {
	i := bytes.IndexByte(p, '/')
	return i > 0 && token(p[:i]) && token(p[i+1:])
}
