package telemetry

import (
	"testing"

	"moire.dev/moire/proxy/message"
)

// What a worker does allocates nothing once it is warm.
func TestNoAllocations(t *testing.T) {
	for _, propagate := range []string{"w3c", "b3", "both"} {
		tel := New(Options{Log: quiet()})
		tab := tel.Open(tracedConfig(propagate))
		w := tel.Worker(0)
		r := someRequest(tab)
		r.Flags, r.GRPC = UpstreamFailed|RetriesExhausted, 3
		var head message.Head
		arena := make([]byte, 0, 4096)
		for _, traced := range []bool{true, false} {
			n := testing.AllocsPerRun(2000, func() {
				fillHead(&head, traced)
				arena = arena[:0]
				w.ConnOpened(tab, 0)
				w.Extract(tab, &head, &r.Trace)
				r.RequestID, arena = w.RequestID(&head, arena)
				arena = w.Inject(tab, &head, &r.Trace, arena)
				arena = w.Inject(tab, &head, &r.Trace, arena) // another try
				w.AddCluster(tab, r.Cluster, Retried, 1)
				w.AddRoute(tab, r.Route, Limited, 1)
				w.AddListener(tab, r.Listener, Handshakes, 1)
				oneExchange(w, tab, r)
				w.ConnClosed(tab, 0)
			})
			if n != 0 {
				t.Errorf("%s, traced %t: %v allocations", propagate, traced, n)
			}
		}
	}
}

// Nor does what the collector does for each request.
func TestCollectorAllocatesLittle(t *testing.T) {
	tel := New(Options{Log: quiet()})
	tab := tel.Open(someConfig())
	k := tell(tel, someRequest(tab))
	dst := make([]byte, 0, 64<<10)
	if n := testing.AllocsPerRun(100, func() {
		dst = tel.sayer().appendJSON(dst[:0], k)
		dst = tel.sayer().appendLine(dst, k)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
