package route

import (
	"bytes"
	"strconv"
	"strings"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// Redirect answers a request with another place.
type Redirect struct {
	Status   int // 301, 302, 303, 307 or 308
	scheme   string
	hostname string
	port     int
	path     *pathChange
}

// pathChange replaces a path, or the prefix that a rule matched.
type pathChange struct {
	full   bool
	prefix string // without a slash at its end
	value  []byte // full
}

// rewrite changes where a request says that it goes.
type rewrite struct {
	hostname []byte
	path     *pathChange
}

func compileRedirect(c *l7.Redirect) *Redirect {
	r := &Redirect{Status: c.Status, scheme: c.Scheme, hostname: c.Hostname, port: c.Port, path: compilePath(c.Path)}
	if r.Status == 0 {
		r.Status = 302
	}
	return r
}

func compileRewrite(c *l7.Rewrite) *rewrite {
	return &rewrite{hostname: []byte(c.Hostname), path: compilePath(c.Path)}
}

func compilePath(c *l7.PathChange) *pathChange {
	switch {
	case c == nil:
		return nil
	case c.Full != nil:
		return &pathChange{full: true, value: []byte(*c.Full)}
	case c.Prefix != nil:
		return &pathChange{prefix: strings.TrimSuffix(*c.Prefix, "/")}
	}
	return nil
}

// append writes the changed path and the query of a target. The edge cases are
// those of the table at HTTPPathModifier.replacePrefixMatch: never an empty
// path, never two slashes where the parts meet.
func (c *pathChange) append(out, target []byte, prefix int) []byte {
	end := len(target)
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		end = i
	}
	prefix = min(prefix, end)
	switch {
	case c == nil:
		return append(out, target...)
	case c.full:
		out = append(out, c.value...)
	case len(c.prefix) == 0 && prefix == end:
		out = append(out, '/')
	default:
		out = append(append(out, c.prefix...), target[prefix:end]...)
	}
	return append(out, target[end:]...)
}

func (r *rewrite) apply(h *message.Head, prefix int, a *Arena) {
	if len(r.hostname) > 0 {
		h.Authority = r.hostname
	}
	if r.path != nil && len(h.Path) > 0 && h.Path[0] == '/' {
		mark := len(a.buf)
		a.buf = r.path.append(a.buf, h.Path, prefix)
		h.Path = a.since(mark)
	}
}

// Answer writes the answer of r to a request into answer, which it resets. The
// request came in at a listener (Found.Listener), by whose port and TLS what r
// leaves open is filled in.
func (t *Table) Answer(r *Redirect, f Found, request, answer *message.Head, a *Arena) {
	mark := len(a.buf)
	a.buf = t.location(a.buf, r, f, request)
	answer.Reset()
	answer.Status, answer.Minor, answer.Framing, answer.Length = r.Status, 1, message.Sized, 0
	answer.Fields = append(answer.Fields, message.Field{Name: locationName, Value: a.since(mark), ID: message.Location})
}

var locationName = []byte(message.Location.String())

func (t *Table) location(out []byte, r *Redirect, f Found, h *message.Head) []byte {
	l := &t.listeners[f.Listener]
	host, given := cutPort(h.Authority)
	if len(host) == 0 && r.hostname == "" {
		return r.target(out, f, h) // HTTP/1.0 without a host: relative to what it asked
	}
	scheme := r.scheme
	if scheme == "" {
		scheme = "http"
		if l.secure {
			scheme = "https"
		}
	}
	out = append(append(out, scheme...), "://"...)
	if r.hostname != "" {
		out = append(out, r.hostname...)
	} else {
		out = append(out, host...)
	}
	port := r.port
	switch {
	case port != 0 || r.scheme != "": // given, or the well-known one
	case l.port != 0:
		port = int(l.port)
	case len(given) > 0:
		port, _ = strconv.Atoi(string(given)) // checked by Match
	}
	if port != 0 && !(scheme == "http" && port == 80) && !(scheme == "https" && port == 443) {
		out = strconv.AppendInt(append(out, ':'), int64(port), 10)
	}
	return r.target(out, f, h)
}

// target is the path and query of a Location.
func (r *Redirect) target(out []byte, f Found, h *message.Head) []byte {
	if len(h.Path) == 0 || h.Path[0] != '/' {
		return append(out, '/')
	}
	return r.path.append(out, h.Path, f.Prefix)
}

// cutPort splits an authority that Match has accepted.
func cutPort(authority []byte) (host, port []byte) {
	i := bytes.LastIndexByte(authority, ':')
	if i < 0 || bytes.IndexByte(authority[i:], ']') >= 0 {
		return authority, nil
	}
	return authority[:i], authority[i+1:]
}
