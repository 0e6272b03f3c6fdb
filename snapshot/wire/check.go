package wire

import (
	"cmp"
	"fmt"
	"net/netip"
	"unicode/utf8"

	"moire.dev/moire/snapshot"
)

// check collects the first thing that is wrong with a row. Its methods turn
// fields into words and note an error instead of returning one, so that a row
// reads as a list of its fields.
type check struct {
	row string
	err error
}

func (c *check) failf(field, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%s: field %s: %s", c.row, field, fmt.Sprintf(format, args...))
	}
}

// text may be empty, and is one line.
func (c *check) text(field, s string, limit int) string {
	if len(s) > limit {
		c.failf(field, "%d bytes; at most %d", len(s), limit)
		return ""
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			c.failf(field, "control character 0x%02x", s[i])
			return ""
		}
	}
	if !utf8.ValidString(s) {
		c.failf(field, "not UTF-8")
		return ""
	}
	return s
}

// lines may be empty and may have several lines.
func (c *check) lines(field, s string) string {
	if len(s) > maxText {
		c.failf(field, "%d bytes; at most %d", len(s), maxText)
		return ""
	}
	if !utf8.ValidString(s) {
		c.failf(field, "not UTF-8")
		return ""
	}
	return s
}

// name must not be empty.
func (c *check) name(field, s string) string {
	if s == "" {
		c.failf(field, "empty")
		return ""
	}
	return c.text(field, s, maxName)
}

func (c *check) count(field string, n, limit int) bool {
	if n > limit {
		c.failf(field, "%d entries; at most %d", n, limit)
		return false
	}
	return true
}

func (c *check) vni(field string, n uint32) snapshot.VNI {
	if n == 0 || n > maxVNI {
		c.failf(field, "network id %d is not within 1 to %d", n, maxVNI)
	}
	return snapshot.VNI(n)
}

func (c *check) uint16(field string, n uint32) uint16 {
	if n > 1<<16-1 {
		c.failf(field, "%d is larger than 65535", n)
	}
	return uint16(n)
}

// addr must be there, in its shortest form.
func (c *check) addr(field string, b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	switch {
	case !ok:
		c.failf(field, "an address of %d bytes; want 4 or 16", len(b))
	case a.Is4In6():
		c.failf(field, "IPv4 address %s in 16 bytes; want 4", a.Unmap())
	case a.IsUnspecified() || a.IsMulticast():
		c.failf(field, "%s is not the address of one host", a)
	}
	return a
}

// prefix keeps the address as it is; masked says whether bits beyond the
// length must be zero.
func (c *check) prefix(field string, p *Prefix, masked bool) netip.Prefix {
	a, ok := netip.AddrFromSlice(p.GetAddress())
	switch {
	case !ok:
		c.failf(field, "a prefix of %d bytes; want 4 or 16", len(p.GetAddress()))
		return netip.Prefix{}
	case a.Is4In6():
		c.failf(field, "IPv4 prefix %s in 16 bytes; want 4", a.Unmap())
		return netip.Prefix{}
	case p.GetBits() > uint32(a.BitLen()):
		c.failf(field, "length %d; at most %d", p.GetBits(), a.BitLen())
		return netip.Prefix{}
	}
	out := netip.PrefixFrom(a, int(p.GetBits()))
	if masked && out != out.Masked() {
		c.failf(field, "%s has bits beyond its length; want %s", out, out.Masked())
	}
	return out
}

// mac: no bytes are the zero MAC, which means that none is set.
func (c *check) mac(field string, b []byte) snapshot.MAC {
	var m snapshot.MAC
	if len(b) == 0 {
		return m
	}
	if len(b) != len(m) {
		c.failf(field, "%d bytes; want %d", len(b), len(m))
		return m
	}
	copy(m[:], b)
	if m == (snapshot.MAC{}) || m[0]&1 == 1 {
		c.failf(field, "%s is not the address of one interface", m)
	}
	return m
}

// labels are sorted by key, each key once.
func (c *check) labels(field string, in []*Label) []snapshot.Label {
	if !c.count(field, len(in), maxItems) {
		return nil
	}
	var out []snapshot.Label
	for _, l := range in {
		out = append(out, snapshot.Label{
			Key:   c.text(field, l.GetKey(), maxLabel),
			Value: c.text(field, l.GetValue(), maxName),
		})
	}
	ascending(c, field, out, func(a, b snapshot.Label) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// addrs are sorted, each once.
func (c *check) addrs(field string, in [][]byte) []netip.Addr {
	if !c.count(field, len(in), maxItems) {
		return nil
	}
	var out []netip.Addr
	for _, b := range in {
		out = append(out, c.addr(field, b))
	}
	ascending(c, field, out, netip.Addr.Compare)
	return out
}

func (c *check) prefixes(field string, in []*Prefix, masked bool) []netip.Prefix {
	if !c.count(field, len(in), maxItems) {
		return nil
	}
	var out []netip.Prefix
	for _, p := range in {
		out = append(out, c.prefix(field, p, masked))
	}
	return out
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// ascending fails unless each item is greater than the one before.
func ascending[T any](c *check, field string, items []T, order func(a, b T) int) {
	for i := 1; i < len(items); i++ {
		if order(items[i-1], items[i]) >= 0 {
			c.failf(field, "entry %d (%v) does not come after the one before it (%v)", i, items[i], items[i-1])
			return
		}
	}
}
