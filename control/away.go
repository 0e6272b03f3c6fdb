package control

import (
	"maps"
	"time"

	"moire.dev/moire/api/v1alpha1"
)

// DefaultAwayAfter is how long a node may be without a stream before what needs
// a living node leaves it.
const DefaultAwayAfter = 2 * time.Second

// awayNodes are the nodes that have not been heard of for that long, and the
// moment at which the next one may join them (zero: none). A node that was
// never seen is away; one that we wait for after a start is not yet. last is
// returned when it says the same.
func awayNodes(exist map[string]*v1alpha1.Node, nodes map[string]nodeWorld, waitFor, last map[string]bool, now time.Time, after time.Duration) (away map[string]bool, next time.Time) {
	away = map[string]bool{}
	for name, o := range exist {
		if o.Spec.External {
			continue // nobody hears of it, ever
		}
		n := nodes[name]
		if n.connected() || waitFor[name] {
			continue
		}
		due := n.seen.Add(after)
		if !due.After(now) {
			away[name] = true
		} else if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	if maps.Equal(away, last) {
		return last, next
	}
	return away, next
}
