package telemetry

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"
)

// lookEvery is how often the collector looks without being woken.
const lookEvery = 100 * time.Millisecond

// collector empties the rings of all workers. Its loop owns the outlets.
type collector struct {
	t       *Telemetry
	is      *settings // that the outlets follow
	log     *outlet   // the access log
	records *outlet
	spans   []*outlet
	hand    told // the event that is being dealt with

	running sync.WaitGroup
	ctx     context.Context // of deliveries
}

// Run collects what workers tell, and delivers it, until ctx is done and what
// was told before is delivered, for a few seconds at most. It must run once.
func (t *Telemetry) Run(ctx context.Context) error {
	deliveries, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	c := &collector{t: t, is: &settings{}, ctx: deliveries}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-t.wake:
		case <-tick.C:
		}
		c.turn()
	}
	for _, o := range c.outlets() {
		o.end()
	}
	return c.wait(stop, t.grace)
}

// wait until all outlets are done; after grace they are told to give up, and
// after that again those that hang in a write are left behind.
func (c *collector) wait(stop func(), grace time.Duration) error {
	done := make(chan struct{})
	go func() {
		c.running.Wait()
		close(done)
	}()
	patience := time.NewTimer(grace)
	defer patience.Stop()
	for range 2 {
		select {
		case <-done:
			return nil
		case <-patience.C:
			stop()
			patience.Reset(grace)
		}
	}
	return errors.New("telemetry: a log, socket or collector takes nothing; what was left for it is lost")
}

func (c *collector) outlets() (out []*outlet) {
	for _, o := range append([]*outlet{c.log, c.records}, c.spans...) {
		if o != nil {
			out = append(out, o)
		}
	}
	return out
}

// turn empties all rings once.
func (c *collector) turn() {
	if want := c.t.config.Load(); want != c.is {
		c.follow(want)
	}
	now := c.t.o.Now()
	k := &c.hand
	k.offset = time.Now().UnixNano() - now
	h := c.t.history
	outlets := c.outlets()
	n := 0
	for i, w := range c.t.workers {
		k.worker = i
		// The lock is for each ring, not for each event: readers are rare.
		h.mu.Lock()
		n += w.ring.drain(func(e *event, id uint64) {
			k.event.copy(e)
			k.id = id
			c.t.resolve(k)
			h.add(k)
			if c.log != nil {
				c.log.add(k, now)
			}
			if c.records != nil {
				c.records.add(k, now)
			}
			if k.trace.Sampled() && k.trace.Server != ([8]byte{}) {
				for _, o := range c.spans {
					o.add(k, now)
				}
			}
		})
		h.mu.Unlock()
	}
	if n > 0 {
		h.mu.Lock()
		h.tell()
		h.mu.Unlock()
		c.t.collected.Add(uint64(n))
	}
	for _, o := range outlets {
		o.tick(now)
	}
}

// resolve puts names to the numbers of an event.
func (t *Telemetry) resolve(k *told) {
	k.route = t.routes.nameOf(k.event.route)
	k.cluster = t.clusters.nameOf(k.event.cluster).name
	k.listener = t.listeners.nameOf(k.event.listener).name
	k.source, k.destination, k.rule, k.shadow = nil, nil, "", ""
	if k.side == NoSide {
		return
	}
	k.rule, k.shadow = t.rules.nameOf(k.event.rule).name, t.rules.nameOf(k.event.shadow).name
	c := *t.census.Load()
	k.source, k.destination = c.find(k.vni, k.sourceAddress().Addr(), k.from), c.find(k.vni, k.destinationAddress().Addr(), k.to)
}

// follow makes the outlets of a configuration; those that stay the same stay.
func (c *collector) follow(want *settings) {
	was := c.is
	c.is = want
	renamed := was.name != want.name || was.node != want.node
	if renamed || was.AccessLog != want.AccessLog || was.AccessFormat != want.AccessFormat {
		c.log = c.replace(c.log, c.t.accessLog(want))
	}
	if renamed || was.Records != want.Records {
		c.records = c.replace(c.records, c.t.recordLog(want))
	}
	if renamed || !reflect.DeepEqual(was.Tracing, want.Tracing) {
		for _, o := range c.spans {
			o.end()
		}
		c.spans = nil
		for _, o := range c.t.exporters(want) {
			c.spans = append(c.spans, c.replace(nil, o))
		}
	}
}

// replace ends one outlet and starts another; both can be nil.
func (c *collector) replace(was, is *outlet) *outlet {
	if was != nil {
		was.end()
	}
	if is != nil {
		c.running.Go(func() { is.run(c.ctx) })
	}
	return is
}

func (t *Telemetry) accessLog(s *settings) *outlet {
	if s.AccessLog == "" {
		return nil
	}
	o := newOutlet(outletNames[accessLogCounts], &t.outletCounts[accessLogCounts], t.o.Log)
	say := s.sayer(t.boot)
	o.append = oneLine(say.appendJSON)
	if s.AccessFormat == "text" {
		o.append = oneLine(say.appendLine)
	}
	l := newLines(s.AccessLog)
	o.deliver, o.close = l.deliver, l.close
	return o
}

func oneLine(do func(dst []byte, k *told) []byte) func([]byte, *told) ([]byte, int) {
	return func(dst []byte, k *told) ([]byte, int) { return do(dst, k), 1 }
}

func (t *Telemetry) recordLog(s *settings) *outlet {
	if s.Records == "" {
		return nil
	}
	o := newOutlet(outletNames[recordCounts], &t.outletCounts[recordCounts], t.o.Log)
	o.append = oneLine(s.sayer(t.boot).appendJSON)
	l := newLines(s.Records)
	o.deliver, o.close = l.deliver, l.close
	return o
}

func (t *Telemetry) exporters(s *settings) (out []*outlet) {
	if s.Tracing == nil {
		return nil
	}
	if url := s.Tracing.OTLP; url != "" {
		out = append(out, t.exporter(otlpCounts, url, newOTLP(s.name, t.o.Version)))
	}
	if url := s.Tracing.Zipkin; url != "" {
		out = append(out, t.exporter(zipkinCounts, url, newZipkin(s.name)))
	}
	return out
}
