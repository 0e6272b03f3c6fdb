package proxy

import (
	"context"
	stdtls "crypto/tls"
	"reflect"
	"runtime/debug"
	"slices"
	"time"

	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/check"
	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/snapshot/l7"
)

// checking asks the endpoints of one cluster whether they are well.
type checking struct {
	checker *check.Checker
	conf    l7.Check
	cluster *cluster
	tls     *clientTLS
	stop    context.CancelFunc // nil: not begun
}

// follow makes the active checks those of a plan. Those that stay as they are
// keep what they know.
func (p *Proxy) follow(n *plan) {
	want := map[string]*settings{}
	for _, s := range n.clusters {
		if s.conf.Check != nil {
			want[s.name] = s
		}
	}
	for name, c := range p.checks {
		if s := want[name]; s == nil || !reflect.DeepEqual(c.conf, *s.conf.Check) || c.tls != s.tls || c.cluster != s.cluster {
			if c.stop != nil {
				c.stop()
			}
			delete(p.checks, name)
		}
	}
	for name, s := range want {
		c := p.checks[name]
		if c == nil {
			c = p.newChecking(s)
			p.checks[name] = c
			p.begin(c)
		}
		c.checker.Endpoints(addresses(s.plan))
	}
}

func addresses(p *balance.Plan) []string {
	out := make([]string, 0, p.Len())
	for i := range p.Len() {
		if !slices.Contains(out, p.Address(i)) {
			out = append(out, p.Address(i))
		}
	}
	return out
}

func (p *Proxy) newChecking(s *settings) *checking {
	c := &checking{conf: *s.conf.Check, cluster: s.cluster, tls: s.tls}
	var config *stdtls.Config
	if s.tls != nil {
		var err error
		if config, err = s.tls.Config(c.conf.Host); err != nil {
			p.log.Error("active check: endpoints cannot be verified; set serverName", "cluster", s.name, "error", err)
		}
	}
	c.checker = &check.Checker{Check: c.conf, HTTP2: s.two, TLS: config, Report: func(address string, well bool, why string) {
		if !s.shared.SetHealth(address, well, p.now()) {
			return
		}
		if well {
			p.log.Info("endpoint is well", "cluster", s.name, "endpoint", address)
			return
		}
		p.log.Warn("endpoint is not well", "cluster", s.name, "endpoint", address, "why", why)
	}}
	return c
}

// begin starts a check once Run goes on.
func (p *Proxy) begin(c *checking) {
	if p.ctx == nil || c.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(p.ctx)
	c.stop = stop
	p.running.Go(func() {
		if err := c.checker.Run(ctx); err != nil {
			p.log.Error("active check", "cluster", c.cluster.name, "error", err)
		}
	})
}

// tick judges endpoints by what they did, brings those back whose time is over,
// and looks whether certificates changed.
func (p *Proxy) tick(ctx context.Context) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	var events []balance.Event
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if cur := p.plan.Load(); cur != nil {
			for _, s := range cur.clusters {
				events = s.shared.Tick(p.now(), events[:0])
				for _, ev := range events {
					p.tell(cur, s, ev)
				}
			}
		}
		if n%20 == 0 {
			p.secretsChanged()
		}
		if n%50 == 49 && p.trimmed.Load() > giveBack {
			p.trimmed.Store(0)
			debug.FreeOSMemory()
		}
	}
}

// giveBack is how many bytes a burst left behind before they are given back to
// the machine: nothing else would collect them while little happens.
const giveBack = 2 << 20

func (p *Proxy) tell(n *plan, s *settings, ev balance.Event) {
	if ev.Returned {
		p.log.Info("endpoint is back after its ejection", "cluster", s.name, "endpoint", ev.Address)
		return
	}
	p.log.Warn("endpoint ejected", "cluster", s.name, "endpoint", ev.Address, "reason", ev.Reason.String(),
		"value", ev.Value, "threshold", ev.Threshold, "times", ev.Times)
	w := p.workers[0]
	w.loop.Post(func() { w.tel.AddCluster(n.table, s.id, telemetry.Ejections, 1) })
}
