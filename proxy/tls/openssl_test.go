package tls

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	stdtls "crypto/tls"

	"moire.dev/moire/snapshot/l7"
)

// echo answers on one connection with what comes, through a Filter, until the
// peer ends. It returns what the handshake settled.
func echo(conn net.Conn, config *stdtls.Config) (Facts, error) {
	defer conn.Close()
	f := ServerFilter(config, conn.RemoteAddr().String())
	wire, p := make([]byte, 4096), make([]byte, 4096)
	flush := func() error {
		for len(f.Sealed()) > 0 {
			n, err := conn.Write(f.Sealed())
			if err != nil {
				return err
			}
			f.Sent(n)
		}
		return nil
	}
	pull := func() error {
		if err := flush(); err != nil {
			return err
		}
		n, err := conn.Read(wire)
		f.Feed(wire[:n])
		if err == io.EOF {
			f.End()
			err = nil
		}
		return err
	}
	if err := f.Handshake(pull); err != nil {
		_ = flush()
		return Facts{}, err
	}
	for {
		n, err := f.Read(p)
		switch {
		case err == io.EOF:
			f.CloseWrite()
			return f.Facts(), flush()
		case err != nil:
			return f.Facts(), err
		case n > 0:
			if err := f.Write(p[:n]); err != nil {
				return f.Facts(), err
			}
			continue
		}
		f.Rest()
		if err := pull(); err != nil {
			return f.Facts(), err
		}
	}
}

type served struct {
	facts Facts
	err   error
}

// listen serves echo on a port of loopback until the test ends.
func listen(t *testing.T, config *stdtls.Config) (addr string, results <-chan served) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ch := make(chan served, 16)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			facts, err := echo(conn, config)
			ch <- served{facts, err}
		}
	}()
	return l.Addr().String(), ch
}

// client runs openssl s_client against addr.
type client struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

func openssl(t *testing.T, args ...string) *client {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatal(err)
		}
		t.Skip("openssl is not installed")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	cmd := exec.CommandContext(ctx, path, append([]string{"s_client", "-verify_return_error"}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cancel()
		_ = cmd.Wait()
	})
	return &client{t: t, in: in, out: bufio.NewReader(out), cmd: cmd}
}

// until reads lines until one has word in it.
func (c *client) until(word string) {
	c.t.Helper()
	var seen strings.Builder
	for {
		line, err := c.out.ReadString('\n')
		seen.WriteString(line)
		if strings.Contains(line, word) {
			return
		}
		if err != nil {
			c.t.Fatalf("openssl ended without %q:\n%s", word, seen.String())
		}
	}
}

func (c *client) say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

// TestOpenSSL speaks with another implementation: both versions, keys that are
// updated under way, resumption, a client's certificate.
func TestOpenSSL(t *testing.T) {
	ca := newCA(t, "ca")
	cert := ca.issue("x", both(dns("a.shop"), withURI(t, webID)))
	store := stored(t, cert)
	server, err := ServerConfig(&l7.ServerTLS{Certificates: []string{"x"}, ClientCA: ca.pem, ClientOptional: true, Callers: []string{webID}}, l7.AutoHTTP, store, NewVerified(10))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	caFile := file("ca", ca.pem)
	addr, results := listen(t, server)
	usual := []string{"-connect", addr, "-servername", "a.shop", "-CAfile", caFile}
	run := func(name string, want Facts, talk func(c *client), args ...string) {
		t.Run(name, func(t *testing.T) {
			c := openssl(t, append(args, usual...)...)
			c.until("Verify return code: 0")
			talk(c)
			c.say("Q")
			select {
			case r := <-results:
				r.facts.Suite, want.Suite = 0, 0
				if r.err != nil || r.facts != want {
					t.Errorf("%v, %+v, want %+v", r.err, r.facts, want)
				}
			case <-time.After(10 * time.Second):
				t.Error("the connection did not end")
			}
		})
	}
	hello := func(c *client) {
		c.say("hello")
		c.until("hello")
	}
	update := func(c *client) {
		hello(c)
		for _, key := range []string{"k", "K", "K"} {
			c.say(key)
			c.until("KEYUPDATE")
			c.say("after " + key)
			c.until("after " + key)
		}
	}
	facts := Facts{ServerName: "a.shop", Version: stdtls.VersionTLS13}
	run("1.3", facts, hello)
	run("key update", facts, update, "-tls1_3")
	facts.Protocol = "http/1.1"
	run("ALPN", facts, hello, "-alpn", "http/1.1")
	facts.Protocol, facts.Version = "", stdtls.VersionTLS12
	session := filepath.Join(dir, "session")
	run("1.2", facts, hello, "-tls1_2", "-sess_out", session)
	facts.Resumed = true
	run("1.2 resumed", facts, hello, "-tls1_2", "-sess_in", session)
	facts = Facts{ServerName: "a.shop", Version: stdtls.VersionTLS13, Peer: webID, Certificate: true}
	run("certificate", facts, hello, "-cert", file("chain", cert.Chain), "-key", file("key", cert.Key))
}
