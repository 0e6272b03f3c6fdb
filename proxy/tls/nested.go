package tls

// Nested is TLS inside of TLS: what the inner Filter seals is what the outer one
// carries. The handshake of the outer one is over.
type Nested struct {
	outer, inner *Filter
	ended        bool // inner knows that no more comes
}

// NewNested puts inner into outer.
func NewNested(outer, inner *Filter) *Nested { return &Nested{outer: outer, inner: inner} }

// Feed takes bytes that came from the wire; they are copied.
func (n *Nested) Feed(wire []byte) {
	n.outer.Feed(wire)
	n.open()
}

// End says that no more bytes come from the wire.
func (n *Nested) End() {
	n.outer.End()
	n.open()
}

// open moves what came in outer to inner. Whatever ends outer is an end for inner,
// which knows whether that was in order.
func (n *Nested) open() {
	var room [4096]byte
	for !n.ended {
		k, err := n.outer.Read(room[:])
		n.inner.Feed(room[:k])
		if err != nil {
			n.ended = true
			n.inner.End()
		}
		if k == 0 {
			return
		}
	}
}

// carry moves what inner has sealed to outer.
func (n *Nested) carry() error {
	b := n.inner.Sealed()
	if len(b) == 0 {
		return nil
	}
	err := n.outer.Write(b)
	n.inner.Sent(len(b))
	return err
}

// Read gives plaintext into p, as Filter does.
func (n *Nested) Read(p []byte) (int, error) {
	n.open() // outer may have held back what p had no room for
	return n.inner.Read(p)
}

// Write seals p twice.
func (n *Nested) Write(p []byte) error {
	if err := n.inner.Write(p); err != nil {
		return err
	}
	return n.carry()
}

// Sealed are bytes for the wire, as of Filter.
func (n *Nested) Sealed() []byte {
	if n.carry() != nil {
		return nil // the next Write says why
	}
	return n.outer.Sealed()
}

// Sent takes k bytes from the front of Sealed.
func (n *Nested) Sent(k int) { n.outer.Sent(k) }

// CloseWrite seals the messages that say that no more will come.
func (n *Nested) CloseWrite() {
	n.inner.CloseWrite()
	if n.carry() == nil {
		n.outer.CloseWrite()
	}
}

// Rest gives back memory of a connection on which nothing happens.
func (n *Nested) Rest() {
	n.inner.Rest()
	n.outer.Rest()
}
