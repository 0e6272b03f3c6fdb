package compile

import (
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
func checkOf(spec *v1alpha1.HealthCheck, a snapshot.Addr) snapshot.Check {
	h := *spec
	v1alpha1.DefaultHealth(&h)
	c := snapshot.Check{CheckKey: snapshot.CheckKey{Addr: a, Kind: h.Type}, Interval: seconds(h.IntervalSeconds), Timeout: seconds(h.TimeoutSeconds),
		Failures: int(h.Failures), Successes: int(h.Successes)}
	if c.Kind != "icmp" {
		c.Port = uint16(h.Port)
	}
	if c.Kind == "http" {
		c.Path = h.Path
	}
	return c
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }
