package message

// Framing says how the body after a head ends.
type Framing uint8

// Framings.
const (
	None       Framing = iota // no body
	Sized                     // Length bytes
	Chunked                   // HTTP/1.1 chunks, or HTTP/2 DATA until END_STREAM
	UntilClose                // an HTTP/1 answer that ends with its connection
)

// Head is one head. A codec fills it, filters change it, a codec writes it.
//
// For a request Method, Scheme, Authority and Path are set, and Host is never
// among Fields. For an answer Status is set. Fields that belong to one
// connection only (Connection and what it names, Keep-Alive, TE except
// "trailers", Transfer-Encoding, Upgrade, Proxy-Connection, HTTP2-Settings) and
// Content-Length are never among Fields: a codec takes them out when it reads,
// and writes what Framing, Close and Upgrade say.
type Head struct {
	Method []byte // case-sensitive, a token
	Scheme []byte // "http" or "https"; empty: as the connection is
	// Authority is host or host:port as received; not empty in a valid request
	// but for HTTP/1.0.
	Authority []byte
	// Path with query as received, in origin form; "*" for OPTIONS *; empty for
	// CONNECT.
	Path []byte
	// Status of an answer, 100 to 599; 0 in a request.
	Status int
	// Fields in the order received, names in lower case.
	Fields []Field

	Framing Framing
	// Length of a Sized body. In an answer to HEAD and in a 304 it is what
	// Content-Length said though no body follows (Framing None), or -1.
	Length int64
	// Minor version of HTTP/1: 0 or 1; 1 for HTTP/2.
	Minor uint8
	// Close: the connection ends after this message (HTTP/1).
	Close bool
	// Expect: the sender waits for 100 Continue.
	Expect bool
	// TE says "trailers".
	Trailers bool
	// Upgrade is the protocol that an HTTP/1 Upgrade or an HTTP/2 extended CONNECT
	// (:protocol) asks for, or that a 101 answers; nil: none.
	Upgrade []byte
}

// Field is one header field line.
type Field struct {
	Name  []byte // lower case
	Value []byte // without white space around it
	ID    ID
	// Never is HPACK's never-indexed mark: it is passed on.
	Never bool
}

// Reset makes h empty and keeps its memory.
func (h *Head) Reset() {
	*h = Head{Fields: h.Fields[:0], Length: -1}
}

// Get is the value of the first field with this id, and whether there is one.
func (h *Head) Get(id ID) ([]byte, bool) {
	for i := range h.Fields {
		if h.Fields[i].ID == id {
			return h.Fields[i].Value, true
		}
	}
	return nil, false
}

// Lookup is the value of the first field called name, which is in lower case.
func (h *Head) Lookup(name string) ([]byte, bool) {
	if id := Known(name); id != Other {
		return h.Get(id)
	}
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID == Other && string(f.Name) == name {
			return f.Value, true
		}
	}
	return nil, false
}

// Add puts a field at the end. Name is in lower case.
func (h *Head) Add(name, value []byte) {
	h.Fields = append(h.Fields, Field{Name: name, Value: value, ID: Identify(name)})
}

// Remove takes out all fields called name, in lower case, and says how many.
func (h *Head) Remove(name string) int {
	kept := h.Fields[:0]
	for _, f := range h.Fields {
		if string(f.Name) != name {
			kept = append(kept, f)
		}
	}
	n := len(h.Fields) - len(kept)
	h.Fields = kept
	return n
}

// IsMethod compares the method.
func (h *Head) IsMethod(m string) bool { return string(h.Method) == m }

// PathOnly is Path without its query.
func (h *Head) PathOnly() []byte {
	for i, c := range h.Path {
		if c == '?' {
			return h.Path[:i]
		}
	}
	return h.Path
}
