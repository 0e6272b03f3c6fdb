package ipam

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot"
)

func prefixes(ss ...string) (out []netip.Prefix) {
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func ranges(t testing.TB, ss ...string) (out []snapshot.Range) {
	t.Helper()
	for _, s := range ss {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, rangeOf(p))
			continue
		}
		first, last, ok := strings.Cut(s, "-")
		if !ok {
			last = first
		}
		out = append(out, snapshot.Range{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)})
	}
	return out
}

func TestCarve(t *testing.T) {
	tests := []struct {
		name  string
		space Space
		taken []string
		ipv6  bool
		want  string // "" is exhausted
	}{
		{"a sixteenth", Space{Prefixes: prefixes("10.0.0.0/24")}, nil, false, "10.0.0.0/28"},
		{"at most 64", Space{Prefixes: prefixes("10.0.0.0/16")}, nil, false, "10.0.0.0/26"},
		{"the second", Space{Prefixes: prefixes("10.0.0.0/16")}, []string{"10.0.0.0/26"}, false, "10.0.0.64/26"},
		{"a gap", Space{Prefixes: prefixes("10.0.0.0/16")}, []string{"10.0.0.0/26", "10.0.0.128/26"}, false, "10.0.0.64/26"},
		{"a small prefix: network and gateway are no block", Space{Prefixes: prefixes("10.0.0.0/29")}, nil, false, "10.0.0.2/32"},
		{"full", Space{Prefixes: prefixes("10.0.0.0/30")}, []string{"10.0.0.2/32"}, false, ""},
		{"a single address is the gateway", Space{Prefixes: prefixes("10.0.0.1/32")}, nil, false, ""},
		{"v6", Space{Prefixes: prefixes("10.0.0.0/24", "fd00::/64")}, nil, true, "fd00::/122"},
		{"v6 next", Space{Prefixes: prefixes("fd00::/64")}, []string{"fd00::/122"}, true, "fd00::40/122"},
		{"no v6", Space{Prefixes: prefixes("10.0.0.0/24")}, nil, true, ""},
		{"second prefix", Space{Prefixes: prefixes("10.0.0.0/30", "10.1.0.0/24")}, []string{"10.0.0.2/32"}, false, "10.1.0.0/28"},
		{"allocation", Space{Prefixes: prefixes("10.0.0.0/24"), Allocation: ranges(t, "10.0.0.100-10.0.0.120")}, nil, false, "10.0.0.96/28"},
		{"allocation of the other family", Space{Prefixes: prefixes("10.0.0.0/24", "fd00::/64"), Allocation: ranges(t, "10.0.0.128/25")}, nil, true, ""},
		{"reserved", Space{Prefixes: prefixes("10.0.0.0/24"), Reserved: ranges(t, "10.0.0.0/27")}, nil, false, "10.0.0.32/28"},
		{"static", Space{Prefixes: prefixes("fd00::/64"), Static: ranges(t, "fd00::-fd00::ffff")}, nil, true, "fd00::1:0/122"},
		{"larger taken", Space{Prefixes: prefixes("10.0.0.0/16")}, []string{"10.0.0.0/20"}, false, "10.0.16.0/26"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Carve(tt.space, prefixes(tt.taken...), tt.ipv6)
			if tt.want == "" {
				if !errors.Is(err, ErrExhausted) {
					t.Fatalf("got %v, %v, want ErrExhausted", got, err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Fatalf("got %v, %v, want %s", got, err, tt.want)
			}
		})
	}
}

// TestCarveAll: carving until nothing is left gives every dynamic address
// exactly once.
func TestCarveAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Space{Prefixes: prefixes("10.0.0.0/25", "10.9.0.4/30")}
		draw := func(label string) (out []snapshot.Range) {
			for range rapid.IntRange(0, 3).Draw(t, label) {
				first := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 120).Draw(t, "first"))})
				last := first
				for range rapid.IntRange(0, 30).Draw(t, "more") {
					last = last.Next()
				}
				out = append(out, snapshot.Range{First: first, Last: last})
			}
			return out
		}
		s.Allocation, s.Reserved, s.Static = draw("allocation"), draw("reserved"), draw("static")
		set, err := s.dynamic()
		if err != nil {
			t.Fatal(err)
		}
		var taken []netip.Prefix
		count := 0
		for {
			b, err := Carve(s, taken, false)
			if errors.Is(err, ErrExhausted) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range taken {
				if o.Overlaps(b) {
					t.Fatalf("%s overlaps %s", b, o)
				}
			}
			excluded, usable := Excluded(b, s), 0
			for a := b.Addr(); b.Contains(a); a = a.Next() {
				_, no := excluding(excluded, a)
				if no == set.Contains(a) {
					t.Fatalf("%s: excluded is %v, dynamic is %v", a, no, set.Contains(a))
				}
				if !no {
					usable++
				}
			}
			if usable == 0 {
				t.Fatalf("block %s has no address to give out", b)
			}
			count += usable
			taken = append(taken, b)
		}
		want := 0
		for _, r := range set.Ranges() {
			for a := r.From(); !r.To().Less(a); a = a.Next() {
				want++
			}
		}
		if count != want {
			t.Fatalf("the blocks hold %d addresses, the Network has %d", count, want)
		}
	})
}

func TestExcluded(t *testing.T) {
	s := Space{Prefixes: prefixes("10.0.0.0/24", "fd00::/64"), Reserved: ranges(t, "10.0.0.5"), Static: ranges(t, "10.0.0.6-10.0.0.7")}
	show := func(b string) (out []string) {
		for _, r := range Excluded(netip.MustParsePrefix(b), s) {
			out = append(out, r.First.String()+"-"+r.Last.String())
		}
		return out
	}
	for block, want := range map[string][]string{
		"10.0.0.0/28":   {"10.0.0.0-10.0.0.1", "10.0.0.5-10.0.0.7"},
		"10.0.0.16/28":  nil,
		"10.0.0.240/28": {"10.0.0.255-10.0.0.255"},
		"fd00::/122":    {"fd00::-fd00::1"},
		"10.7.0.0/30":   {"10.7.0.0-10.7.0.3"}, // no part of the Network
	} {
		if got := show(block); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", block, got, want)
		}
	}
	bad := Space{Prefixes: prefixes("10.0.0.0/24"), Reserved: []snapshot.Range{{}}}
	if got := Excluded(netip.MustParsePrefix("10.0.0.0/30"), bad); len(got) != 1 || got[0].Last.String() != "10.0.0.3" {
		t.Errorf("a Space without sense excludes %v, want everything", got)
	}
}
