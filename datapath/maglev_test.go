package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot"
)

func someBackends(n int, weight func(i int) uint32) []snapshot.Backend {
	var out []snapshot.Backend
	for i := range n {
		out = append(out, snapshot.Backend{
			Addr: snapshot.Addr{VNI: 7, IP: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}, Port: 80, Weight: weight(i),
		})
	}
	return out
}

// TestMaglevBalance: every backend has its share of the slots, by weight.
func TestMaglevBalance(t *testing.T) {
	for _, n := range []int{2, 3, 10, 50, 51, 256, 1000} {
		for name, weight := range map[string]func(int) uint32{
			"equal": func(int) uint32 { return 1 }, "mixed": func(i int) uint32 { return uint32(1 + i%4) }, "unset": func(int) uint32 { return 0 },
		} {
			all := someBackends(n, weight)
			size := tableSize(n)
			count, sum := make([]int, n), 0
			for _, i := range maglev(all, size) {
				count[i]++
			}
			for i := range all {
				sum += int(max(weight(i), 1))
			}
			for i, got := range count {
				want := float64(size) * float64(max(weight(i), 1)) / float64(sum)
				if d := float64(got) - want; d > 3 || d < -3 {
					t.Errorf("%d backends, %s: %d has %d slots of %d, not %.1f", n, name, i, got, size, want)
				}
			}
		}
	}
}

// TestMaglevDisruption: a backend that goes moves hardly anybody but its own
// clients, and when it comes back everything is as before, whatever the order.
func TestMaglevDisruption(t *testing.T) {
	for _, n := range []int{3, 10, 50, 200, 400} {
		all := someBackends(n, func(int) uint32 { return 1 })
		size := tableSize(n)
		before := maglev(all, size)
		worst := 0
		for gone := 0; gone < n; gone += max(n/8, 1) {
			rest := slices.Delete(slices.Clone(all), gone, gone+1)
			after := maglev(rest, size)
			moved := 0
			for s := range before {
				if int(before[s]) != gone && all[before[s]] != rest[after[s]] {
					moved++
				}
			}
			worst = max(worst, moved)
		}
		t.Logf("%d backends, %d slots: at most %d moved (%.1f %%)", n, size, worst, 100*float64(worst)/float64(size))
		if float64(worst) > 0.2*float64(size) {
			t.Errorf("%d backends: %d of %d slots moved without need", n, worst, size)
		}
	}
}

func TestMaglevProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 300).Draw(t, "n")
		weights := rapid.SliceOfN(rapid.Uint32Range(0, 1000), n, n).Draw(t, "weights")
		all := someBackends(n, func(i int) uint32 { return weights[i] })
		slots := maglev(all, tableSize(n))
		if !slices.Equal(slots, maglev(all, tableSize(n))) {
			t.Fatal("not the same twice")
		}
		for _, i := range slots {
			if int(i) >= n {
				t.Fatal("a slot is empty")
			}
		}
	})
	for n, want := range map[int]int{0: 0, 1: 0, 2: 509, 50: 509, 51: 4093, 409: 4093, 410: 16381, 5000: 16381} {
		if got := tableSize(n); got != want {
			t.Errorf("%d backends: %d slots, want %d", n, got, want)
		}
	}
}

func BenchmarkMaglev(b *testing.B) {
	for _, n := range []int{2, 10, 50, 256, 1000} {
		all := someBackends(n, func(int) uint32 { return 1 })
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				maglev(all, tableSize(n))
			}
		})
	}
}
