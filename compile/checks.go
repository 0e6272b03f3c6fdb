package compile

import (
	"cmp"
	"time"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// placedCheck is a health check and the node that does it.
type placedCheck struct {
	node string
	snapshot.Check
}

// healths is what nodes said of the checks of one Network. It is never changed
// after it was made.
type healths struct {
	byNode map[string]map[snapshot.CheckKey]bool
}

// well reports whether the node said that the check succeeds. Not checked yet
// is not well.
func (h *healths) well(node string, k snapshot.CheckKey) bool {
	return h != nil && h.byNode[node][k]
}

// checkOf is the health check of one address, with defaults.
func checkOf(h *v1alpha1.HealthCheck, a snapshot.Addr) snapshot.Check {
	seconds := func(n, otherwise int32) time.Duration { return time.Duration(cmp.Or(n, otherwise)) * time.Second }
	c := snapshot.Check{CheckKey: snapshot.CheckKey{Addr: a, Kind: cmp.Or(h.Type, "tcp")}, Interval: seconds(h.IntervalSeconds, 2), Timeout: seconds(h.TimeoutSeconds, 1),
		Failures: int(cmp.Or(h.Failures, 2)), Successes: int(cmp.Or(h.Successes, 1))}
	if c.Kind != "icmp" {
		c.Port = uint16(h.Port)
	}
	if c.Kind == "http" {
		c.Path = cmp.Or(h.Path, "/")
	}
	return c
}
