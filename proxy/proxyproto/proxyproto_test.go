package proxyproto

import (
	"net/netip"
	"strings"
	"testing"
)

const v2 = signatureV2

var good = []struct {
	in       string
	from, to string
	version  int
	local    bool
}{
	{"PROXY TCP4 192.0.2.1 198.51.100.2 1 65535\r\n", "192.0.2.1:1", "198.51.100.2:65535", 1, false},
	{"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 0 443\r\n", "[2001:db8::1]:0", "[::ffff:192.0.2.1]:443", 1, false},
	{"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
		"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", 1, false},
	{"PROXY UNKNOWN\r\n", "", "", 1, false},
	{"PROXY UNKNOWN whatever it is\r\n", "", "", 1, false},
	{v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x00\x01\x01\xbb", "192.0.2.1:1", "198.51.100.2:443", 2, false},
	{v2 + "\x21\x11\x00\x13\xc0\x00\x02\x01\xc6\x33\x64\x02\x00\x01\x01\xbb\x04\x00\x01x\x05\x00\x00", "192.0.2.1:1", "198.51.100.2:443", 2, false},
	{v2 + "\x21\x21\x00\x24" + strings.Repeat("\x20\x01", 8) + strings.Repeat("\x20\x02", 8) + "\x00\x50\x01\xbb",
		"[2001:2001:2001:2001:2001:2001:2001:2001]:80", "[2002:2002:2002:2002:2002:2002:2002:2002]:443", 2, false},
	{v2 + "\x20\x00\x00\x00", "", "", 2, true},
	{v2 + "\x20\x11\x00\x03abc", "", "", 2, true},
	{v2 + "\x21\x00\x00\x03abc", "", "", 2, false},
}

func TestParse(t *testing.T) {
	for _, c := range good {
		h, n, err := Parse([]byte(c.in + "GET"))
		text := func(a netip.AddrPort) string {
			if !a.IsValid() {
				return ""
			}
			return a.String()
		}
		if err != nil || n != len(c.in) || text(h.Source) != c.from || text(h.Destination) != c.to || h.Version != c.version || h.Local != c.local {
			t.Errorf("%q: %v, %d bytes, %+v", c.in, err, n, h)
		}
		for k := range c.in {
			if _, _, err := Parse([]byte(c.in[:k])); err != ErrMore {
				t.Errorf("%q: %v, want more", c.in[:k], err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		in   string
		want error
	}{
		{"GET / HTTP/1.1\r\n", ErrNone},
		{"PROXYTCP4", ErrNone},
		{"proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n", ErrNone},
		{"\r\n\r\n\r\n", ErrNone},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", ErrHeader},
		{"PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n", ErrHeader},
		{"PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n", ErrHeader},
		{"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n", ErrHeader},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n", ErrHeader},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n", ErrHeader},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", ErrHeader},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n", ErrHeader},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n", ErrHeader},
		{"PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n", ErrHeader},
		{"PROXY TCP4 ::1 ::2 1 2\r\n", ErrHeader},
		{"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n", ErrHeader},
		{"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n", ErrHeader},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n", ErrHeader},
		{"PROXY UNKNOWN" + strings.Repeat("x", 120), ErrHeader},
		{v2 + "\x31", ErrHeader},
		{v2 + "\x22\x11\x00\x0c", ErrHeader},
		{v2 + "\x21\x12\x00\x0c" + strings.Repeat("a", 12), ErrHeader},
		{v2 + "\x21\x31\x00\xd8" + strings.Repeat("a", 216), ErrHeader},
		{v2 + "\x21\x11\x00\x0b" + strings.Repeat("a", 11), ErrHeader},
		{v2 + "\x21\x21\x00\x23" + strings.Repeat("a", 35), ErrHeader},
		{v2 + "\x21\x11\x00\x0d" + strings.Repeat("a", 13), ErrHeader},
		{v2 + "\x21\x11\x00\x0f" + strings.Repeat("a", 12) + "\x04\x00\x01", ErrHeader},
		{v2 + "\x21\x11\xff\xff", ErrHeader},
	} {
		if h, n, err := Parse([]byte(c.in)); err != c.want || n != 0 || h.Source.IsValid() {
			t.Errorf("%q: %v, want %v; %d, %+v", c.in, err, c.want, n, h)
		}
	}
}

func TestWrite(t *testing.T) {
	v4, w4 := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("198.51.100.2:65535")
	v6 := netip.MustParseAddrPort("[2001:db8::1]:0")
	mapped := netip.MustParseAddrPort("[::ffff:198.51.100.2]:65535")
	for _, c := range []struct{ from, to, wantFrom, wantTo netip.AddrPort }{
		{v4, w4, v4, w4}, {v6, v6, v6, v6}, {v4, mapped, v4, w4}, {v6, w4, v6, mapped}, {netip.AddrPort{}, v4, netip.AddrPort{}, netip.AddrPort{}},
	} {
		for version, b := range [][]byte{1: AppendV1(nil, c.from, c.to), 2: AppendV2(nil, c.from, c.to)} {
			if version == 0 {
				continue
			}
			h, n, err := Parse(b)
			if err != nil || n != len(b) || h.Version != version || h.Source != c.wantFrom || h.Destination != c.wantTo {
				t.Errorf("%s to %s: %q: %v, %+v", c.from, c.to, b, err, h)
			}
		}
	}
}

func TestAllocations(t *testing.T) {
	b := make([]byte, 0, 256)
	from, to := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("198.51.100.2:443")
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := Parse(AppendV2(b, from, to)); err != nil {
			t.Fatal(err)
		}
		AppendV1(b, from, to)
	}); n > 0 {
		t.Errorf("%v allocations for two headers", n)
	}
}

// FuzzParse: no panic, nothing beyond the header, and what was understood is
// understood the same when it is written again.
func FuzzParse(f *testing.F) {
	for _, c := range good {
		f.Add([]byte(c.in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		h, n, err := Parse(in)
		if err != nil {
			if n != 0 || h.Source.IsValid() {
				t.Fatalf("%v, but %d bytes and %+v", err, n, h)
			}
			return
		}
		if n < 1 || n > min(len(in), MaxHeader) || h.Source.IsValid() != h.Destination.IsValid() {
			t.Fatalf("%d of %d bytes, %+v", n, len(in), h)
		}
		if again, k, err := Parse(in[:n]); err != nil || k != n || again != h {
			t.Fatalf("without what follows: %v, %+v, want %+v", err, again, h)
		}
		plain := func(a netip.AddrPort) netip.AddrPort {
			return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		}
		for _, b := range [][]byte{AppendV1(nil, h.Source, h.Destination), AppendV2(nil, h.Source, h.Destination)} {
			again, k, err := Parse(b)
			if err != nil || k != len(b) || plain(again.Source) != plain(h.Source) || plain(again.Destination) != plain(h.Destination) {
				t.Fatalf("%q: %v, %+v, want %+v", b, err, again, h)
			}
		}
	})
}
