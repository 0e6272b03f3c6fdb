package tls

import (
	stdtls "crypto/tls"
	"errors"
	"io"
)

// Filter is one TLS connection over memory: bytes of the wire go in with Feed
// and come out of Sealed, plaintext goes in with Write and comes out of Read.
// Nothing blocks but Handshake, which waits by a function of its caller. It
// belongs to one goroutine.
type Filter struct {
	conn *stdtls.Conn
	wire memory
	more bool  // crypto/tls may have plaintext left
	up   bool  // the handshake is over
	err  error // of the handshake
	over error // what Read ended with
}

// ServerFilter is a Filter for a connection that was accepted.
func ServerFilter(config *stdtls.Config, remote string) *Filter {
	f := &Filter{}
	f.wire.remote = address(remote)
	f.conn = stdtls.Server(&f.wire, config)
	return f
}

// ClientFilter is a Filter for a connection that was made to remote, an address.
func ClientFilter(config *stdtls.Config, remote string) *Filter {
	f := &Filter{}
	f.wire.remote = address(remote)
	f.conn = stdtls.Client(&f.wire, config)
	return f
}

// Feed takes bytes that came from the wire; they are copied.
func (f *Filter) Feed(wire []byte) { f.wire.in.add(wire) }

// End says that no more bytes come from the wire. An end without the peer's
// close_notify is io.ErrUnexpectedEOF to who reads.
func (f *Filter) End() { f.wire.ended = true }

// Sealed are bytes for the wire; they stay valid until the next call of another
// method. Sent takes the first n of them away.
func (f *Filter) Sealed() []byte { return f.wire.out.bytes() }

// Sent takes n bytes from the front of Sealed.
func (f *Filter) Sent(n int) { f.wire.out.consume(n) }

// Handshake runs the handshake to its end. Wait is called when bytes of the wire
// are needed: it writes what is Sealed, parks its caller, and returns after Feed
// or End; its error ends the handshake. After an error Sealed may hold an alert
// that the peer should get before the connection is closed.
func (f *Filter) Handshake(wait func() error) error {
	f.wire.wait = wait
	err := f.conn.Handshake()
	f.wire.wait = nil
	f.up = err == nil
	if err != nil {
		f.err = err
		return err
	}
	f.Rest()
	return nil
}

var errEarly = errors.New("tls: the handshake is not over")

// Read decrypts into p. 0 and no error: more bytes of the wire are needed. The
// error is io.EOF when the peer said that no more will come. Reading may make
// bytes that have to be sent (Sealed).
func (f *Filter) Read(p []byte) (int, error) {
	if !f.up {
		return 0, f.failed()
	}
	if f.over != nil {
		return 0, f.over
	}
	// Asked without need, crypto/tls would try to read and allocate for that.
	if !f.more && f.wire.record() == 0 {
		if f.wire.ended {
			f.over = io.ErrUnexpectedEOF
			return 0, f.over
		}
		f.wire.in.settle()
		return 0, nil
	}
	n, err := f.conn.Read(p)
	f.more = err == nil && n == len(p)
	switch {
	case err == error(errWouldBlock):
		return n, nil
	case err == io.EOF && f.wire.cut:
		err = io.ErrUnexpectedEOF
	}
	f.over = err
	return n, err
}

// Write seals p. It never blocks: who writes bounds what is Sealed.
func (f *Filter) Write(p []byte) error {
	if !f.up {
		return f.failed()
	}
	_, err := f.conn.Write(p)
	return err
}

// CloseWrite seals the message that says that no more will come.
func (f *Filter) CloseWrite() {
	if f.up {
		// It fails only where something failed before, which Write has said.
		_ = f.conn.CloseWrite()
	}
}

func (f *Filter) failed() error {
	if f.err != nil {
		return f.err
	}
	return errEarly
}

// Rest gives back memory of a connection on which nothing happens.
func (f *Filter) Rest() {
	if !f.more {
		shrink(f.conn)
	}
}

// Facts is what a handshake settled.
type Facts struct {
	ServerName string // of the ClientHello, as sent; empty: none
	Protocol   string // of ALPN; empty: none was agreed on
	Version    uint16 // as in crypto/tls
	Suite      uint16
	Resumed    bool
	// Peer is the URI that is the peer's identity; empty: it has none.
	Peer string
	// Certificate says that the peer showed one, which was verified.
	Certificate bool
}

// Facts of a connection whose handshake is over.
func (f *Filter) Facts() Facts {
	s := f.conn.ConnectionState()
	facts := Facts{ServerName: s.ServerName, Protocol: s.NegotiatedProtocol, Version: s.Version, Suite: s.CipherSuite, Resumed: s.DidResume}
	if len(s.PeerCertificates) > 0 {
		facts.Certificate = true
		facts.Peer = Identity(s.PeerCertificates[0])
	}
	return facts
}

// Plain says whether err, of Handshake, means that no TLS came at all, and what
// came first: perhaps a request in plain HTTP, which deserves an answer.
func Plain(err error) (first [recordHeader]byte, ok bool) {
	var e stdtls.RecordHeaderError
	if !errors.As(err, &e) || e.Conn == nil {
		return first, false
	}
	return e.RecordHeader, true
}
