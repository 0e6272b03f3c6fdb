package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
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

// health adds the check of a backend, and takes the backend out when the check
// does not succeed.
func (d *jointDraft) health(s *v1alpha1.Service, b *place) {
	if s.Spec.Health == nil {
		return
	}
	c := checkOf(s.Spec.Health, b.at)
	if c.Kind != "icmp" && c.Port == 0 && len(s.Spec.Ports) > 0 {
		c.Port = targetPort(s.Spec.Ports[0])
	}
	b.out = !d.checked(b, c) || b.out
}

// checked adds a check of a backend, and says whether it succeeds.
func (d *jointDraft) checked(b *place, c snapshot.Check) bool {
	if !b.out && b.by != "" {
		d.checks = append(d.checks, placedCheck{b.by, c})
	}
	return d.facts.health[b.at.VNI].well(b.by, c.CheckKey)
}

// checkPorts has the backends of a Service checked as BackendPolicies say, and
// notes at which ports they are not well.
func (d *jointDraft) checkPorts(s *v1alpha1.Service, all []place) {
	i, found := slices.BinarySearchFunc(d.facts.fronts, Key{s.Namespace, s.Name}, func(f *front, k Key) int { return compareKeys(f.facts.key, k) })
	if !found {
		return
	}
	for j := range s.Spec.Ports {
		port := &s.Spec.Ports[j]
		if protocol(port.Protocol) != policy.TCP {
			continue
		}
		held := d.facts.fronts[i].facts.policies.ofPort(port)
		asked := held.check(appOf(port))
		if asked == nil {
			continue
		}
		for k := range all {
			b := &all[k]
			if !d.checked(b, activeCheck(asked, held.tls() || speaksTLS(port), b.at, targetPort(*port))) {
				if b.unwell == nil {
					b.unwell = map[int32]bool{}
				}
				b.unwell[port.Port] = true
			}
		}
	}
}

// activeCheck is what a BackendPolicy asks of one address, with defaults.
func activeCheck(asked *l7.Check, secure bool, a snapshot.Addr, port uint16) snapshot.Check {
	c := snapshot.Check{CheckKey: snapshot.CheckKey{Addr: a, Kind: asked.Kind, Port: port},
		Interval: asked.Interval.Or(5 * time.Second), Timeout: asked.Timeout.Or(time.Second),
		Failures: cmp.Or(asked.Failed, 3), Successes: cmp.Or(asked.Healthy, 2)}
	switch c.Kind {
	case "http":
		c.TLS, c.Path, c.Host, c.Statuses = secure, cmp.Or(asked.Path, "/"), asked.Host, "200"
		if len(asked.Statuses) > 0 {
			c.Statuses = strings.Trim(strings.ReplaceAll(fmt.Sprint(asked.Statuses), " ", ","), "[]")
		}
	case "grpc":
		c.TLS, c.Service = secure, asked.Service
	}
	return c
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }
