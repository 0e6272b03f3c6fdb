package resilience

import (
	"math"
	"testing"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

func head(fields ...string) *message.Head {
	h := &message.Head{}
	for i := 0; i < len(fields); i += 2 {
		h.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return h
}

func TestFault(t *testing.T) {
	f, err := NewFault(&l7.Fault{
		Delay: l7.Duration(100), DelayPercent: 30, Abort: 503, AbortPercent: 1.5,
		Headers: []l7.ValueMatch{{Name: "X-Test", Value: "yes"}, {Kind: l7.Regex, Name: "user-agent", Value: "curl/.*"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	meant := head("user-agent", "curl/8", "x-test", "yes")
	delayed, aborted := 0.0, 0.0
	const n = 50_000
	for k := range uint64(n) {
		rnd := (k + 1) * 0x9e3779b97f4a7c15
		rnd ^= rnd >> 29
		rnd *= 0xbf58476d1ce4e5b9
		in := f.Inject(meant, rnd)
		if in.Delay != 0 {
			delayed++
		}
		if in.Abort {
			aborted++
			if in.Status != 503 {
				t.Fatalf("status %d", in.Status)
			}
		}
	}
	if math.Abs(delayed/n-0.3) > 0.01 || math.Abs(aborted/n-0.015) > 0.003 {
		t.Errorf("delayed %.4f, aborted %.4f", delayed/n, aborted/n)
	}
	for _, h := range []*message.Head{head(), head("x-test", "yes"), head("x-test", "no", "user-agent", "curl/8"), head("x-test", "yes", "user-agent", "my curl/8")} {
		if in := f.Inject(h, 0); in != (Injected{}) {
			t.Errorf("%+v for a request that was not meant", in)
		}
	}
	if all, err := NewFault(&l7.Fault{AbortGRPC: 14, AbortPercent: 100}); err != nil || all.Inject(head(), math.MaxUint64) != (Injected{Abort: true, GRPC: 14}) {
		t.Errorf("100 %%: %v", err)
	}
	if none, err := NewFault(&l7.Fault{AbortPercent: 100}); err != nil || none.Inject(head(), 0).Abort {
		t.Errorf("aborted without a status: %v", err)
	}
	if none, err := NewFault(nil); err != nil || none.Inject(head(), 0) != (Injected{}) {
		t.Errorf("a fault of nothing: %v", err)
	}
	if _, err := NewFault(&l7.Fault{Headers: []l7.ValueMatch{{Kind: l7.Regex, Name: "a", Value: "("}}}); err == nil {
		t.Error("a broken expression was taken")
	}
}
