package route

import (
	"math/bits"

	"moire.dev/moire/snapshot/l7"
)

// Route is one route of the Config.
type Route struct {
	ID   int // index in Config.Routes
	Name string
	Kind l7.Kind
}

// Rule is what Match finds: all that a request needs, ready to use. It is
// immutable; its numbers are good for indexing arrays.
type Rule struct {
	ID    int // dense over the Table: 0 to Table.Rules()-1
	Route *Route
	// Name of the rule, or its index in its route when it has none.
	Name string
	// Backends of the rule. Pick says which.
	Backends []Backend
	Filters  Filters

	Retry      *l7.Retry
	Hedge      *l7.Hedge
	Fault      *l7.Fault
	RateLimits []l7.RateLimit
	Hash       []l7.HashOn
	Subset     map[string]string

	total    uint64   // of the weights
	upTo     []uint64 // sum of the weights up to and with each backend
	hash     []source
	limiters []source
}

// Backend is one destination of a Rule.
type Backend struct {
	// Cluster is an index in Config.Clusters, or Invalid.
	Cluster int
	Weight  uint32
	// Filters beside those of the rule, for requests that go here only.
	Filters Filters
}

// Invalid is the Cluster of a Backend or a Mirror that names none that exists.
const Invalid = -1

// None is what Pick returns when there is nothing to pick.
const None = -1

// Pick is the index of the backend that a random number falls to, or None: the
// rule has no backend, or all weights are 0. A request that gets None, or a
// backend whose Cluster is Invalid, is answered with 500 (HTTPRoute), with
// status 14 (GRPCRoute), or closed (TLSRoute, TCPRoute).
func (r *Rule) Pick(random uint64) int {
	if len(r.Backends) == 1 && r.total > 0 {
		return 0
	}
	if r.total == 0 {
		return None
	}
	at, _ := bits.Mul64(random, r.total)
	low, high := 0, len(r.upTo)-1
	for low < high {
		if middle := (low + high) / 2; at < r.upTo[middle] {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}
