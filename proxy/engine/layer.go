package engine

import "io"

// Layer is what lies between the bytes of a socket and those of its owner: TLS.
type Layer interface {
	// Feed takes bytes from the wire.
	Feed(wire []byte)
	// Read gives what Feed made readable; 0 and no error: nothing more now. The
	// error io.EOF is an orderly end.
	Read(p []byte) (int, error)
	// Write has p sealed.
	Write(p []byte) error
	// Sealed is what is to be written to the wire; Sent takes n bytes of it away.
	Sealed() []byte
	Sent(n int)
	// CloseWrite seals the message that says that no more will come.
	CloseWrite()
	// End says that no more comes from the wire.
	End()
	// Rest gives back memory of a connection on which nothing happens.
	Rest()
}

// SetLayer puts a layer in; what is in In goes through it first.
func (c *Conn) SetLayer(y Layer) {
	c.layer = y
	if n := c.In.Len(); n > 0 {
		y.Feed(c.In.Bytes())
		c.In.Consume(n)
	}
	c.more = true
	c.Resume()
}

// RemoveLayer takes the layer out: what is written from here on goes as it is.
func (c *Conn) RemoveLayer() { c.layer = nil }

// pullLayer reads through the layer.
func (c *Conn) pullLayer() {
	if c.In.Len() >= c.most() {
		c.more = true
		return
	}
	n, whole := c.read(&c.raw)
	if n > 0 {
		c.layer.Feed(c.raw.Bytes())
		c.raw.Consume(c.raw.Len())
	}
	c.raw.release(c.loop)
	if c.EOF {
		c.EOF = c.Shaking
		c.layer.End()
	}
	c.more = n > 0 && (whole || c.hup)
	c.Decrypt()
	c.Resume()
}

// Decrypt moves what the layer has for its owner into In.
func (c *Conn) Decrypt() {
	if c.Shaking {
		return
	}
	for c.Fault == nil && c.In.Len() < c.most() {
		room := c.In.space(c.loop, sizes[0])
		n, err := c.layer.Read(room)
		c.In.w += n
		if err != nil {
			c.layerEnded(err)
			break
		}
		if n == 0 {
			break
		}
	}
	if c.In.Len() >= c.most() {
		c.more = true
	}
	if c.In.Len() == 0 {
		c.In.release(c.loop)
	}
	if len(c.layer.Sealed()) > 0 {
		c.touch()
	}
}

// flushLayer seals what waits and writes it.
func (c *Conn) flushLayer() {
	for {
		if b := c.layer.Sealed(); len(b) > 0 {
			if c.out.Len() == 0 && c.loop.ring != nil {
				c.launchSealed(b)
				return
			}
			n := c.writeNow(b)
			c.layer.Sent(n)
			if n < len(b) || c.Err != 0 {
				return
			}
		}
		if c.out.Len() == 0 {
			return
		}
		n := min(c.out.Len(), sizes[2])
		if err := c.layer.Write(c.out.Bytes()[:n]); err != nil {
			c.layerEnded(err)
			c.out.Consume(c.out.Len())
			return
		}
		c.out.Consume(n)
	}
}

func (c *Conn) layerEnded(err error) {
	if err == io.EOF {
		c.EOF = true
		return
	}
	c.Fault = err
	c.EOF = true
}
