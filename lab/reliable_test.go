package lab

import (
	"context"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"moire.dev/moire/node/local"
)

// times is how often something is done: n, or all of it when MOIRE_LONG is set.
func times(n, long int) int {
	if os.Getenv("MOIRE_LONG") != "" {
		return long
	}
	return n
}

// repeat does it n times, or long times when MOIRE_LONG is set, but for no longer
// than that says.
func (r *reliable) repeat(t *testing.T, n, long int, do func(i int)) {
	t.Helper()
	began := time.Now()
	limit, err := time.ParseDuration(os.Getenv("MOIRE_LONG"))
	if err != nil {
		limit, long = time.Hour, n
	}
	i := 0
	for ; i < long && time.Since(began) < limit && !t.Failed(); i++ {
		do(i)
	}
	t.Logf("%d times in %s", i, time.Since(began).Round(time.Second))
}

// meshed is a tenant in the mesh: one caller, and backends on two nodes.
type meshed struct {
	domain   string
	web      guest
	apis     []guest
	replicas []*replica
}

// meshed makes a tenant, strict.
func (l *Lab) meshed(t *testing.T, domain string) *meshed {
	t.Helper()
	intent := strings.ReplaceAll(askingTenant+"---"+meshTenant, "metadata: {name: DOMAIN}", "metadata: {name: DOMAIN}\nspec: {mtls: strict, svidLifeSeconds: LIFE}")
	// Renewed at half of that; in long it must outlast a minute without a control plane.
	intent = strings.ReplaceAll(intent, "LIFE", strconv.Itoa(times(60, 140)))
	l.apply(t, strings.ReplaceAll(intent, "DOMAIN", domain))
	p, m := domain+"-p", &meshed{domain: domain}
	m.web = l.attach(t, "n1", p, "net", "web", "app=web")
	for _, node := range []string{"n2", "n3"} {
		b := &replica{says: domain}
		api := l.attach(t, node, p, "net", "api-"+node, "app=api")
		api.serve(t, 8080, b)
		m.apis, m.replicas = append(m.apis, api), append(m.replicas, b)
	}
	return m
}

// reliable are two tenants with the same addresses.
type reliable struct {
	*Lab
	tenants []*meshed
}

var vips = []netip.AddrPort{netip.MustParseAddrPort("10.9.0.200:80"), netip.MustParseAddrPort("[fd09::200]:80")}

// load begins.
func (r *reliable) load(patience time.Duration) *load {
	ctx, cancel := context.WithCancel(context.Background())
	w := &load{stop: cancel, done: map[string]int{}, patience: patience}
	n := size{kept: 3, fresh: 1, long: 1, denied: 1, pause: 20 * time.Millisecond}
	if os.Getenv("MOIRE_LONG") != "" { // 2,000 requests/s on 200 connections, 200 new ones/s, 48 long answers
		n = size{kept: 50, fresh: 5, long: 12, denied: 2, pause: 100 * time.Millisecond}
	}
	for _, m := range r.tenants {
		for _, vip := range vips {
			w.begin(ctx, m.web, vip, m.domain, n)
		}
	}
	return w
}

// TestReliable: mesh traffic of two tenants with the same addresses, in both
// families, while things go wrong; each time nothing fails but what is said
// there, and what a rule denies never comes to a backend.
func TestReliable(t *testing.T) {
	r := &reliable{Lab: theLab(t)}
	for _, domain := range []string{"firm-a", "firm-b"} {
		r.tenants = append(r.tenants, r.meshed(t, domain))
	}
	r.settle(t)
	for _, c := range []struct {
		name     string
		patience time.Duration // of requests; 0: 10 s
		disturb  func(*testing.T, *load)
	}{
		{"ControlPlaneGone", 0, r.controlPlaneGone},
		{"IdentitiesRotated", 0, r.identitiesRotated},
		{"AgentsKilled", 0, r.agentsKilled},
		{"ProxiesUpgraded", 0, r.proxiesUpgraded},
		{"ProxiesKilled", 0, r.proxiesKilled},
		{"PoliciesReplaced", 0, r.policiesReplaced},
		{"Churned", 0, r.churned},
		{"NodeDies", time.Second, r.nodeDies},
		{"WorkloadsStarted", 0, r.workloadsStarted},
		{"Operated", 0, r.operated},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := r.load(c.patience)
			t.Cleanup(w.stop)
			time.Sleep(500 * time.Millisecond)
			c.disturb(t, w)
			r.settle(t)
			time.Sleep(500 * time.Millisecond)
			w.end(t)
			for _, m := range r.tenants {
				for i, b := range m.replicas {
					if n := b.strays.Swap(0); n > 0 {
						t.Errorf("%d requests that are denied came to backend %d of %s", n, i, m.domain)
					}
				}
			}
		})
	}
}

// agentsKilled kills the agents in turn (R3).
func (r *reliable) agentsKilled(t *testing.T, _ *load) {
	r.repeat(t, 3, 50, func(i int) {
		n := r.Nodes[i%len(r.Nodes)]
		if err := n.Agent.Kill(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		if err := r.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
	})
}

// proxiesUpgraded has the proxies replaced again and again (R4).
func (r *reliable) proxiesUpgraded(t *testing.T, _ *load) {
	r.repeat(t, 3, 60, func(i int) {
		r.must(t, "proxy", "upgrade", "--run-dir", r.RunDir, "--node", r.Nodes[i%len(r.Nodes)].Name)
		time.Sleep(400 * time.Millisecond)
	})
}

// proxy is the process of the proxy of a node.
func (l *Lab) proxy(t *testing.T, n *Node) int {
	t.Helper()
	all, err := local.NewClient(local.Socket(l.RunDir, n.Name)).Proxies(t.Context())
	if err != nil || len(all) != 1 || all[0].PID == 0 {
		t.Fatalf("the proxy of %s: %+v %v", n.Name, all, err)
	}
	return all[0].PID
}

// proxiesKilled kills the proxies in turn (R5). What goes through them breaks;
// whoever connects a second later does not notice.
func (r *reliable) proxiesKilled(t *testing.T, w *load) {
	var worst time.Duration
	r.repeat(t, 3, 30, func(i int) {
		n := r.Nodes[i%len(r.Nodes)]
		at := time.Now()
		w.spare(at, time.Second)
		if err := syscall.Kill(r.proxy(t, n), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(times(2, 4)) * time.Second) // who dies again within 10 s has to wait
		worst = max(worst, w.last(at))
	})
	t.Logf("the last request that failed began %s after a proxy was killed", worst.Round(time.Millisecond))
}
