package resilience

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot/l7"
)

func TestDeadlines(t *testing.T) {
	s := int64(time.Second)
	d := NewDeadlines(l7.Timeouts{Request: l7.Duration(10 * time.Second), Backend: l7.Duration(4 * time.Second)})
	for _, c := range []struct{ got, want int64 }{
		{d.Whole(100, 0), 100 + 10*s},
		{d.Whole(100, 3*s), 100 + 3*s},
		{d.Whole(100, 30*s), 100 + 10*s},
		{Deadlines{}.Whole(100, 0), 0},
		{Deadlines{}.Whole(100, 3*s), 100 + 3*s},
		{Deadlines{}.Whole(100, math.MaxInt64), 0},
		{d.Try(0, 10*s), 4 * s},
		{d.Try(8*s, 10*s), 10 * s},
		{d.Try(8*s, 0), 12 * s},
		{Deadlines{}.Try(8*s, 10*s), 10 * s},
		{Deadlines{}.Try(8*s, 0), 0},
	} {
		if c.got != c.want {
			t.Errorf("%d, want %d", c.got, c.want)
		}
	}
}

func TestParseGRPCTimeout(t *testing.T) {
	for value, want := range map[string]int64{
		"1H": int64(time.Hour), "2M": int64(2 * time.Minute), "3S": int64(3 * time.Second), "4m": 4e6, "5u": 5000, "6n": 6,
		"0n": 0, "99999999n": 99_999_999, "99999999H": math.MaxInt64, "00000001S": 1e9,
	} {
		if got, ok := ParseGRPCTimeout([]byte(value)); !ok || got != want {
			t.Errorf("%q is %d, %t", value, got, ok)
		}
	}
	for _, value := range []string{"", "S", "1", "1s", "1h", "-1S", "+1S", "1.5S", "123456789n", " 1S", "1S ", "1mS"} {
		if got, ok := ParseGRPCTimeout([]byte(value)); ok {
			t.Errorf("%q is %d", value, got)
		}
	}
}

// What is written is read as no more than there was, and hardly less.
func TestAppendGRPCTimeout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		left := rapid.Int64Range(0, math.MaxInt64>>rapid.IntRange(0, 62).Draw(t, "scale")).Draw(t, "left")
		text := AppendGRPCTimeout(nil, left)
		got, ok := ParseGRPCTimeout(text)
		if !ok || len(text) > 9 || got > max(left, 1) || float64(got) < float64(left)*(1-1e-5) {
			t.Fatalf("%d is written %q and read %d", left, text, got)
		}
	})
	for left, want := range map[int64]string{-5: "1n", 0: "1n", 1500: "1500n", 99_999_999: "99999999n", 100_000_000: "100000u", 2e9: "2000000u"} {
		if got := string(AppendGRPCTimeout(nil, left)); got != want {
			t.Errorf("%d is written %q, want %q", left, got, want)
		}
	}
}

func FuzzParseGRPCTimeout(f *testing.F) {
	f.Add([]byte("100m"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, ok := ParseGRPCTimeout(b); ok && (got < 0 || len(b) > 9) {
			t.Errorf("%q is %d", b, got)
		}
	})
}
