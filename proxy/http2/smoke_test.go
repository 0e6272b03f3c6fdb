package http2

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"moire.dev/moire/proxy/message"
)

func serve(t testing.TB, nc net.Conn) {
	defer nc.Close()
	var c Conn
	c.Init(&Config{}, nil, 0)
	buf := make([]byte, 3000)
	bodies := map[*Stream][]byte{}
	flush := func() bool {
		for len(c.Out()) > 0 {
			n, err := nc.Write(c.Out())
			if err != nil {
				return false
			}
			c.Sent(n)
		}
		return true
	}
	write := func(s *Stream) {
		b := bodies[s]
		n := c.WriteData(s, b, true, 0)
		bodies[s] = b[n:]
		if s.LocalDone() {
			c.Release(s)
		}
	}
	for {
		if !flush() {
			return
		}
		n, err := nc.Read(buf)
		if err != nil {
			return
		}
		in := buf[:n]
		for {
			ev, n, err := c.Next(in, time.Now().UnixNano())
			in = in[n:]
			if err != nil {
				t.Log(err)
				flush()
				return
			}
			if ev.Kind == NeedMore {
				break
			}
			switch ev.Kind {
			case Data:
				bodies[ev.Stream] = append(bodies[ev.Stream], ev.Data...)
				c.Consumed(ev.Stream, len(ev.Data))
			case Reset:
				c.Release(ev.Stream)
				continue
			}
			if ev.End {
				s := ev.Stream
				c.WriteHead(s, &message.Head{Status: 200, Framing: message.Chunked, Fields: []message.Field{{Name: []byte("x-path"), Value: s.Head.Path}}}, false)
				write(s)
			}
		}
		for {
			flush()
			s := c.Writable()
			if s == nil {
				break
			}
			write(s)
		}
	}
}

func TestSmoke(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go serve(t, nc)
		}
	}()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p}
	_ = xhttp2.Transport{}
	for i := range 50 {
		body := strings.Repeat("abcdefgh", i*4000)
		req, _ := http.NewRequest("POST", "http://"+l.Addr().String()+"/p/"+strings.Repeat("x", i*100), strings.NewReader(body))
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(i, err)
		}
		got, err := io.ReadAll(res.Body)
		if err != nil || string(got) != body || res.Header.Get("x-path") != req.URL.Path {
			t.Fatal(i, err, len(got), len(body))
		}
	}
}
