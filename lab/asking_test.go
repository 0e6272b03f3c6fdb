package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ask is one connection with one request, or with bytes that are none.
type ask struct {
	id     string
	tenant *randomTenant
	from   resident
	to     netip.AddrPort
	bytes  bool // no request
	method string
	path   string
	fields []string // "name: value"
	host   string
}

func (a *ask) String() string {
	what := "bytes"
	if !a.bytes {
		what = fmt.Sprintf("%s %s of %s with %q", a.method, a.path, a.host, a.fields)
	}
	return fmt.Sprintf("%s: %s -> %s %s", a.tenant.domain, a.tenant.project(a.from)+"/"+a.from.name, a.to, what)
}

// ask is a random one among the residents of a tenant.
func (d dice) ask(t *randomTenant) *ask {
	a := &ask{id: fmt.Sprintf("%016x", d.Uint64()), tenant: t, from: pick(d, residents...)}
	six := d.in(2)
	port := uint16(pick(d, 8080, 8080, 8080, 8081, 9000))
	host := pick(d, residents...).host
	for host == a.from.host {
		host = pick(d, residents...).host
	}
	if d.in(2) {
		host, port = 201+d.IntN(len(services)), uint16(pick(d, 80, 80, 80, 80, 81, 90))
	}
	a.to = netip.AddrPortFrom(addr(host, six), port)
	a.bytes = port == 9000 || port == 90 || (port == 8081 || port == 81) && d.in(3)
	a.method, a.path, a.host = pick(d, methods...), pick(d, append([]string{"/ab", "/a/./b", "/b/../a", "/%61"}, paths...)...), pick(d, hosts...)
	if d.in(3) {
		a.fields = append(a.fields, "x-role: "+pick(d, roles...))
	}
	if d.in(8) {
		a.method, a.path = "POST", pick(d, "/shop.Cart/Get", "/shop.Cart/Put")
		a.fields = append(a.fields, "content-type: application/grpc")
	}
	return a
}

// met is what happened to an ask.
type met struct {
	mu      sync.Mutex
	reached []string // who got it: project/workload
	path    string   // as it was got
	host    string
	status  int    // of the answer; 0: none, or bytes
	answer  bool   // there was one
	port    uint16 // source port
	err     error
}

// noRequest is how bytes begin that nobody can take for a request; an empty line
// ends them, for which who waits for a head waits.
const noRequest = "\x00bytes "

// book notes what arrives.
type book struct {
	mu   sync.Mutex
	asks map[string]*met
	port atomic.Uint32 // the last source port, from 33000: each ask has its own
}

func (b *book) of(id string) *met {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.asks[id]
	if m == nil {
		m = &met{}
		b.asks[id] = m
	}
	return m
}

// reaches notes that somebody got what has the id.
func (b *book) reaches(id, who, path, host string) {
	m := b.of(id)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reached, m.path, m.host = append(m.reached, who), path, host
}

// serve answers requests, and lines of bytes, at every port that is asked for.
func (b *book) serve(t *testing.T, netns, who string) {
	for _, port := range ports {
		var l net.Listener
		if err := InNetns(netns, func() (err error) { l, err = net.Listen("tcp", "[::]:"+port); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go b.answer(c, who)
			}
		}()
	}
}

func (b *book) answer(c net.Conn, who string) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		c.SetDeadline(time.Now().Add(time.Minute))
		if start, err := in.Peek(len(noRequest)); err != nil {
			return
		} else if string(start) == noRequest {
			line, err := in.ReadString('\n')
			if _, more := in.ReadString('\n'); err != nil || more != nil {
				return
			}
			b.reaches(strings.TrimSpace(line[len(noRequest):]), who, "", "")
			io.WriteString(c, "got it\n")
			return
		}
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		b.reaches(r.Header.Get("x-ask"), who, r.URL.EscapedPath(), r.Host)
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}

// send makes the connection in the namespace of the caller, from a port that is
// known, and waits for an answer.
func (b *book) send(a *ask, wait time.Duration) *met {
	m := b.of(a.id)
	source := addr(a.from.host, a.to.Addr().Is6())
	var c net.Conn
	m.err = InNetns(a.tenant.netns(a.from), func() (err error) {
		for range 20 {
			m.port = uint16(33000 + b.port.Add(1)%27000)
			d := net.Dialer{Timeout: wait, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, m.port))}
			if c, err = d.DialContext(context.Background(), "tcp", a.to.String()); err == nil || !strings.Contains(err.Error(), "address already in use") {
				return err
			}
		}
		return err
	})
	if m.err != nil {
		return m
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(wait))
	if a.bytes {
		fmt.Fprintf(c, "%s%s\r\n\r\n", noRequest, a.id)
		var line string
		line, m.err = bufio.NewReader(c).ReadString('\n')
		m.answer = line == "got it\n"
		return m
	}
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nx-ask: %s\r\nx-request-id: %s\r\nConnection: close\r\n", a.method, a.path, a.host, a.id, a.id)
	if a.method != "GET" && a.method != "DELETE" {
		head += "Content-Length: 0\r\n"
	}
	for _, f := range a.fields {
		head += f + "\r\n"
	}
	if _, m.err = io.WriteString(c, head+"\r\n"); m.err != nil {
		return m
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if m.err = err; err == nil {
		m.answer, m.status = true, r.StatusCode
		r.Body.Close()
	}
	return m
}

// number of a name of environment, or what stands for it.
func number(text string, otherwise int) int {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	return otherwise
}
