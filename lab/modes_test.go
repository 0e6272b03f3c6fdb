package lab

import (
	"context"
	"testing"
)

// TestProxyModes: with a proxy for each project, and for each Workload, requests and
// connections meet the same verdicts as with one for the node. Agents begin anew with
// another mode while Workloads are attached.
func TestProxyModes(t *testing.T) {
	l := theLab(t)
	_, check := l.strictTenants(t, []string{"modes-a", "modes-b"}, nil)
	r := l.trial(t, "mode")
	t.Cleanup(func() { l.proxies(t, "node") })
	for _, mode := range []string{"project", "workload"} {
		t.Run(mode, func(t *testing.T) {
			l.proxies(t, mode)
			check("with a proxy for each " + mode)
			r.rounds(t, times(1, 14), times(80, 150))
		})
	}
}

// proxies makes agents begin anew with another number of proxies.
func (l *Lab) proxies(t *testing.T, mode string) {
	t.Helper()
	l.Proxy = mode
	for _, n := range l.Nodes[:2] { // where Workloads with proxies are
		if err := n.Agent.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := l.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
	}
	l.settle(t)
}
