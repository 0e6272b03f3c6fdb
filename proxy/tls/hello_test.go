package tls

import (
	"bytes"
	stdtls "crypto/tls"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// helloOf is what crypto/tls sends first.
func helloOf(t testing.TB, config *stdtls.Config) []byte {
	t.Helper()
	f := ClientFilter(config, "")
	if err := f.Handshake(func() error { return io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	return bytes.Clone(f.Sealed())
}

// records cuts a handshake message into records of n bytes.
func records(message []byte, n int) []byte {
	var out []byte
	for len(message) > 0 {
		k := min(n, len(message))
		out = append(append(out, 22, 3, 1, byte(k>>8), byte(k)), message[:k]...)
		message = message[k:]
	}
	return out
}

func TestPeekHello(t *testing.T) {
	b := helloOf(t, &stdtls.Config{ServerName: "A.Shop", NextProtos: []string{"h2", "http/1.1"}})
	check := func(what string, b []byte) {
		t.Helper()
		h, err := PeekHello(b)
		if err != nil || h.ServerName != "a.shop" || !slices.Equal(h.Protocols, []string{"h2", "http/1.1"}) || h.Version != stdtls.VersionTLS13 || h.Encrypted {
			t.Errorf("%s: %v, %+v", what, err, h)
		}
	}
	check("whole", b)
	check("with what follows", append(bytes.Clone(b), 20, 3, 3, 0, 1, 1))
	for _, n := range []int{1, 5, 100} {
		check("in many records", records(b[5:], max(n, 12)))
	}
	before := bytes.Clone(b)
	for n := range b {
		if _, err := PeekHello(b[:n]); err != ErrMore {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if !bytes.Equal(before, b) {
		t.Error("the bytes were changed")
	}
	plain, err := PeekHello(helloOf(t, &stdtls.Config{InsecureSkipVerify: true, MaxVersion: stdtls.VersionTLS12}))
	if err != nil || plain.ServerName != "" || plain.Protocols != nil || plain.Version != stdtls.VersionTLS12 {
		t.Errorf("without names: %v, %+v", err, plain)
	}
}

// made is a ClientHello with these extensions.
func made(extensions ...string) []byte {
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00"
	all := strings.Join(extensions, "")
	body += string([]byte{byte(len(all) >> 8), byte(len(all))}) + all
	message := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return records(message, 16384)
}

func extension(id uint16, data string) string {
	return string([]byte{byte(id >> 8), byte(id), byte(len(data) >> 8), byte(len(data))}) + data
}

func sni(name string) string {
	n := len(name)
	return extension(extServerName, string([]byte{0, byte(n + 3), 0, 0, byte(n)})+name)
}

func TestBadHello(t *testing.T) {
	good := made(sni("a.shop"))
	if h, err := PeekHello(good); err != nil || h.ServerName != "a.shop" {
		t.Fatal(err, h)
	}
	if h, err := PeekHello(made(sni("a"), extension(extEncrypted, ""), extension(extVersions, "\x06\x3a\x3a\x03\x03\x03\x04"))); err != nil || !h.Encrypted || h.Version != 0x304 {
		t.Error(err, h)
	}
	cut := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	for what, c := range map[string]struct {
		in   []byte
		want error
	}{
		"HTTP":                  {[]byte("GET / HTTP/1.1\r\n"), ErrNotTLS},
		"SSLv2":                 {[]byte("\x80\x2e\x01\x03\x01"), ErrNotTLS},
		"an alert":              {[]byte{21, 3, 1, 0, 2, 1, 0}, ErrNotTLS},
		"version 4":             {[]byte{22, 4, 1, 0, 2, 1, 0}, ErrNotTLS},
		"an empty record":       {[]byte{22, 3, 1, 0, 0}, ErrHello},
		"a long record":         {[]byte{22, 3, 1, 0x40, 1}, ErrHello},
		"a ServerHello":         {cut(5, 2), ErrHello},
		"too long":              {cut(5, 1, 1, 0, 0), ErrHello},
		"more in the record":    {cut(8, good[8]-1), ErrHello},
		"another record amid":   {append(records(good[5:25], 100), 23, 3, 3, 0, 1, 1), ErrHello},
		"the name twice":        {made(sni("a"), sni("a")), ErrHello},
		"two names":             {made(extension(extServerName, "\x00\x08\x00\x00\x01a\x00\x00\x01b")), ErrHello},
		"an empty name":         {made(sni("")), ErrHello},
		"a dot at the end":      {made(sni("a.shop.")), ErrHello},
		"two dots":              {made(sni("a..shop")), ErrHello},
		"NUL":                   {made(sni("a\x00.shop")), ErrHello},
		"an address":            {made(sni("::1")), ErrHello},
		"another kind of name":  {made(extension(extServerName, "\x00\x04\x01\x00\x01a")), ErrHello},
		"an empty protocol":     {made(extension(extALPN, "\x00\x01\x00")), ErrHello},
		"no protocols":          {made(extension(extALPN, "\x00\x00")), ErrHello},
		"bytes after protocols": {made(extension(extALPN, "\x00\x03\x02h2x")), ErrHello},
		"half a version":        {made(extension(extVersions, "\x03\x03\x04\x03")), ErrHello},
		"a short extension":     {made("\x00\x10\x00\x05h2"), ErrHello},
		"many extensions":       {made(strings.Repeat("\x01\x01\x00\x00", 1) + manyExtensions()), ErrHello},
		"one byte a record":     {records(append([]byte{1, 0, 0x7f, 0xff}, make([]byte, 0x7fff)...), 1)[:MaxHelloWire], ErrHello},
	} {
		if h, err := PeekHello(c.in); err != c.want {
			t.Errorf("%s: %v, want %v; %+v", what, err, c.want, h)
		}
	}
}

func manyExtensions() string {
	var b strings.Builder
	for i := range maxExtensions {
		b.WriteString(extension(uint16(1000+i), ""))
	}
	return b.String()
}

// FuzzPeekHello: no panic, the same answer for a hello and for the same hello
// in other records, and what crypto/tls understands of it.
func FuzzPeekHello(f *testing.F) {
	f.Add(made(sni("a.shop"), extension(extALPN, "\x00\x03\x02h2")), uint8(20))
	f.Add(made(), uint8(1))
	f.Add(helloOf(f, &stdtls.Config{ServerName: "a.b", NextProtos: []string{"h2"}}), uint8(200))
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		before := bytes.Clone(in)
		h, err := PeekHello(in)
		if !bytes.Equal(before, in) {
			t.Fatal("the bytes were changed")
		}
		if err != nil {
			return
		}
		message, err := gather(in)
		if err != nil {
			t.Fatal(err)
		}
		whole := append([]byte{1, byte(len(message) >> 16), byte(len(message) >> 8), byte(len(message))}, message...)
		again, err := PeekHello(records(whole, max(int(cut), 12)))
		if err != nil || again.ServerName != h.ServerName || !slices.Equal(again.Protocols, h.Protocols) {
			t.Fatalf("in records of %d bytes: %v, %+v, want %+v", cut, err, again, h)
		}
		var seen *stdtls.ClientHelloInfo
		server := ServerFilter(&stdtls.Config{GetConfigForClient: func(i *stdtls.ClientHelloInfo) (*stdtls.Config, error) {
			seen = i
			return nil, io.EOF
		}}, "")
		server.Feed(in)
		_ = server.Handshake(func() error { return io.ErrClosedPipe })
		if seen != nil && (!strings.EqualFold(seen.ServerName, h.ServerName) || !slices.Equal(seen.SupportedProtos, h.Protocols)) {
			t.Fatalf("crypto/tls understands %q %q, and we %+v", seen.ServerName, seen.SupportedProtos, h)
		}
	})
}
