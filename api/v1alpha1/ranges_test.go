package v1alpha1

import (
	"net/netip"
	"testing"
)

func TestParseRange(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/30": "10.0.0.0-10.0.0.3", "10.0.0.5": "10.0.0.5", "10.0.0.5-10.0.0.7": "10.0.0.5-10.0.0.7", "10.0.0.5 - 10.0.0.5": "10.0.0.5",
		"fd00::/126": "fd00::-fd00::3", "0.0.0.0/0": "0.0.0.0-255.255.255.255", "fd00::1-fd00::2": "fd00::1-fd00::2",
	} {
		r, err := ParseRange(text)
		if err != nil || r.String() != want {
			t.Errorf("%q is %v (%v), want %s", text, r, err, want)
		}
	}
	for _, bad := range []string{"", "x", "10.0.0.1/24", "10.0.0.5-", "-10.0.0.5", "10.0.0.7-10.0.0.5", "10.0.0.1-fd00::1", "::ffff:10.0.0.1", "fe80::1%a", "1-2-3", "10.0.0.0/33"} {
		if r, err := ParseRange(bad); err == nil {
			t.Errorf("%q is %v", bad, r)
		}
	}
}

// FuzzParseRange: what parses is a range of one family that contains its ends.
func FuzzParseRange(f *testing.F) {
	f.Add("10.0.0.0/24")
	f.Add("fd00::1-fd00::f")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRange(s)
		if err != nil {
			return
		}
		if !r.Contains(r.First) || !r.Contains(r.Last) || !r.Overlaps(r) || r.Last.Less(r.First) {
			t.Fatalf("%q is %v", s, r)
		}
		if again, err := ParseRange(r.String()); err != nil || again != r {
			t.Fatalf("%v became %v (%v)", r, again, err)
		}
		if r.Contains(netip.Addr{}) {
			t.Fatal("contains nothing at all")
		}
	})
}
