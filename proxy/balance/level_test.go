package balance

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot/l7"
)

// The tables of Envoy's documentation: priority.rst and panic_threshold.rst.
func TestSplitAsEnvoyDocuments(t *testing.T) {
	for _, c := range []struct {
		usable, load []int // percent of 100 endpoints; percent of requests
		panic        []bool
	}{
		{[]int{100, 100}, []int{100, 0}, []bool{false, false}},
		{[]int{72, 72}, []int{100, 0}, []bool{false, false}},
		{[]int{71, 71}, []int{99, 1}, []bool{false, false}},
		{[]int{50, 50}, []int{70, 30}, []bool{false, false}},
		{[]int{50, 60}, []int{70, 30}, []bool{false, false}},
		{[]int{25, 100}, []int{35, 65}, []bool{false, false}},
		{[]int{0, 100}, []int{0, 100}, []bool{false, false}},
		{[]int{25, 25}, []int{50, 50}, []bool{true, true}},
		{[]int{5, 65}, []int{8, 92}, []bool{true, false}}, // Envoy rounds to 7 and 93
		{[]int{0, 0}, []int{100, 0}, []bool{true, false}},
		{[]int{25, 25, 100}, []int{35, 35, 30}, []bool{false, false, false}},
		{[]int{25, 25, 20}, []int{37, 35, 28}, []bool{true, true, true}}, // 36, 36, 28
		{[]int{60}, []int{100}, []bool{false}},
		{[]int{49}, []int{100}, []bool{true}},
	} {
		levels, out := make([]health, len(c.usable)), make([]share, len(c.usable))
		for i, u := range c.usable {
			levels[i] = health{u, 100}
		}
		split(levels, 140, 50, out)
		for i := range out {
			if d := out[i].load - c.load[i]; d < -1 || d > 1 || out[i].panic != c.panic[i] {
				t.Errorf("%v: level %d got %+v, want %d %t", c.usable, i, out[i], c.load[i], c.panic[i])
			}
		}
	}
}

// Loads are always 100 together when anybody is usable; a level without a
// usable endpoint gets nothing then.
func TestSplitProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "levels")
		levels, out := make([]health, n), make([]share, n)
		usable := 0
		for i := range levels {
			levels[i].all = rapid.IntRange(1, 300).Draw(t, "all")
			levels[i].usable = rapid.IntRange(0, levels[i].all).Draw(t, "usable")
			if 140*levels[i].usable/levels[i].all > 0 {
				usable += levels[i].usable
			}
		}
		panicAt := rapid.IntRange(0, 100).Draw(t, "panic")
		split(levels, 140, panicAt, out)
		sum := 0
		for i := range out {
			sum += out[i].load
			if usable > 0 && levels[i].usable == 0 && out[i].load > 0 {
				t.Errorf("level %d has nobody and gets %d", i, out[i].load)
			}
			if panicAt == 0 && out[i].panic {
				t.Errorf("panic is off, and level %d is in it", i)
			}
		}
		if want := 100; sum != want && (usable > 0 || panicAt > 0) {
			t.Errorf("loads %v of %v are %d together", out, levels, sum)
		}
	})
}

// well says which endpoints are, by an active check.
func well(s *Shared, p *Plan, now int64, is func(i int) bool) {
	for i := range p.Len() {
		s.SetHealth(p.Address(i), is(i), now)
	}
}

// shares of zones or priorities, in percent.
func shares(t *testing.T, p *Picker, name func(i int) string) map[string]int {
	t.Helper()
	got := map[string]int{}
	for i, n := range count(t, p, 0, 30_000) {
		got[name(i)] += n
	}
	for k := range got {
		got[k] = (got[k] + 150) / 300
	}
	return got
}

func TestLocalityFirstThenElsewhere(t *testing.T) {
	for _, kind := range kinds {
		c := cluster(kind, 30)
		c.Check, c.Locality = &l7.Check{Kind: "tcp"}, &l7.Locality{Zone: "a"}
		for i := range c.Endpoints {
			c.Endpoints[i].Zone = string("abc"[i%3])
		}
		s := NewShared()
		p := build(t, s, c, 0)
		zone := func(i int) string { return p.Plan().Zone(i) }
		for _, v := range []struct{ down, a int }{{0, 100}, {2, 100}, {3, 98}, {5, 70}, {9, 14}, {10, 0}} {
			well(s, p.Plan(), 0, func(i int) bool { return i%3 != 0 || i/3 >= v.down })
			if got := shares(t, p, zone)["a"]; got < v.a-2 || got > v.a+2 {
				t.Errorf("%s: %d of 10 at home are down, and home gets %d %%, want %d", kind, v.down, got, v.a)
			}
		}
	}
}

func TestPrioritiesInOrder(t *testing.T) {
	c := cluster(l7.LeastRequest, 20)
	c.Check = &l7.Check{Kind: "tcp"}
	for i := range c.Endpoints {
		c.Endpoints[i].Priority = 10 * (1 - i%2) // odd ones come first
	}
	s := NewShared()
	p := build(t, s, c, 0)
	priority := func(i int) string { return fmt.Sprint(c.Endpoints[i].Priority) }
	well(s, p.Plan(), 0, func(int) bool { return true })
	if got := shares(t, p, priority); got["0"] != 100 {
		t.Errorf("all well: %v", got)
	}
	well(s, p.Plan(), 0, func(i int) bool { return i%2 == 0 || i < 10 })
	if got := shares(t, p, priority); got["0"] < 68 || got["0"] > 72 {
		t.Errorf("half of the first priority is well: %v, want 70 %%", got)
	}
}

func TestPanicUsesAll(t *testing.T) {
	for _, kind := range kinds {
		c := cluster(kind, 10)
		c.Check = &l7.Check{Kind: "tcp"}
		s := NewShared()
		p := build(t, s, c, 0)
		for _, v := range []struct{ up, used int }{{10, 10}, {5, 5}, {4, 10}, {0, 10}} {
			well(s, p.Plan(), 0, func(i int) bool { return i < v.up })
			used := 0
			for _, n := range count(t, p, 0, 5000) {
				if n > 0 {
					used++
				}
			}
			if used != v.used {
				t.Errorf("%s: %d of 10 are well, and %d are used, want %d", kind, v.up, used, v.used)
			}
		}
		c.Balancer.Panic = new(uint32(0))
		p = build(t, s, c, 0)
		if i, ok := p.Pick(0, All, 1, 1, nil); ok {
			t.Errorf("%s: nobody is well and panic is off, and %d was chosen", kind, i)
		}
		s.SetHealth(c.Endpoints[3].Address, true, 0)
		for k := range uint64(100) {
			if i, ok := p.Pick(0, All, Mix(k), Mix(k), nil); !ok || i != 3 {
				t.Fatalf("%s: only 3 is well, and %d was chosen", kind, i)
			}
		}
	}
}
