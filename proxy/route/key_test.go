package route

import (
	"hash/maphash"
	"net/netip"
	"testing"
)

// TestKeysAreStable: a session stays where it is when a proxy is replaced by
// another of a later release, so these numbers never change.
var hashSeed = maphash.MakeSeed()

func TestKeysAreStable(t *testing.T) {
	table := read(t, `
routes:
- rules:
  - {backends: [{cluster: v1}]}
  - {hash: [{header: X-User}], backends: [{cluster: v1}]}
  - {hash: [{cookie: sid}], backends: [{cluster: v1}]}
  - {hash: [{query: user}], backends: [{cluster: v1}]}
  - {hash: [{address: true}], backends: [{cluster: v1}]}
  - {hash: [{cookie: sid}, {header: x-user}], backends: [{cluster: v1}]}
`)
	var s Scratch
	caller := netip.MustParseAddr("192.0.2.1")
	h := head("GET", "x", "/?a=b&user=%61da", "x-user", "ada", "cookie", "a=b", "cookie", "sid=42; sid=43")
	plain := head("GET", "x", "/")
	for id, want := range []uint64{0x947193f72bdbb8e1, 0xf936116b44ecc28e, 0xf09e934b86ac6c4f, 0xf936116b44ecc28e, 0x947193f72bdbb8e1, 0x23c367ee2bd5adc5} {
		r := table.Rule(id)
		if got := r.HashOf(h, caller, &s); got != want {
			t.Errorf("rule %d hashes to %#x, want %#x", id, got, want)
		}
		if got := r.HashOf(plain, caller, &s); got != table.Rule(0).HashOf(h, caller, &s) {
			t.Errorf("rule %d without what it hashes is %#x, not the caller's address", id, got)
		}
	}
}

func TestLimitKeys(t *testing.T) {
	table := read(t, `
routes:
- rules:
  - rateLimits:
    - {requests: 1, per: 1s}
    - {requests: 1, per: 1s, by: address}
    - {requests: 1, per: 1s, by: identity}
    - {requests: 1, per: 1s, by: "header:X-Key"}
    backends: [{cluster: v1}]
`)
	r := table.Rule(0)
	var s Scratch
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	none, one, two := head("GET", "x", "/"), head("GET", "x", "/", "x-key", "1"), head("GET", "x", "/", "x-key", "2")
	if r.LimitKey(0, hashSeed, one, a, nil, &s) != r.LimitKey(0, hashSeed, two, b, []byte("spiffe://x/y"), &s) {
		t.Error("a limit for all tells callers apart")
	}
	if r.LimitKey(1, hashSeed, one, a, nil, &s) == r.LimitKey(1, hashSeed, one, b, nil, &s) {
		t.Error("addresses share a bucket")
	}
	if r.LimitKey(2, hashSeed, one, a, []byte("spiffe://x/y"), &s) == r.LimitKey(2, hashSeed, one, a, []byte("spiffe://x/z"), &s) {
		t.Error("identities share a bucket")
	}
	if r.LimitKey(3, hashSeed, one, a, nil, &s) == r.LimitKey(3, hashSeed, two, a, nil, &s) {
		t.Error("values of a header share a bucket")
	}
	if r.LimitKey(3, hashSeed, none, a, nil, &s) != r.LimitKey(3, hashSeed, none, b, nil, &s) || r.LimitKey(2, hashSeed, one, a, nil, &s) != r.LimitKey(2, hashSeed, two, b, nil, &s) {
		t.Error("callers escape a limit by leaving out what it goes by")
	}
}

// TestHashSpreads: what differs little falls far apart.
func TestHashSpreads(t *testing.T) {
	const buckets = 64
	var counts [buckets]int
	for i := range 64 * 1000 {
		counts[element(seed, []byte{'u', byte('0' + i/6400), byte('0' + i/640%10), byte('0' + i/64%10), byte(i % 64)})%buckets]++
	}
	for i, n := range counts {
		if n < 800 || n > 1200 {
			t.Errorf("bucket %d has %d of 64,000, want about 1,000", i, n)
		}
	}
}
