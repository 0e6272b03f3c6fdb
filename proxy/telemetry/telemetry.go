package telemetry

import (
	"crypto/rand"
	"log/slog"
	mrand "math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// Options of a Telemetry. The zero Options are those of one worker.
type Options struct {
	Workers int // default 1
	// Version of the proxy, in metrics and spans.
	Version string
	// Now is the clock of Request's moments, nanoseconds, monotonic; default the
	// time since New.
	Now func() int64
	// History is how many requests Last knows; default 1000.
	History int
	// Queue is how many requests of one worker may wait to be read, a power of
	// two; default 1024. More are lost.
	Queue int
	Log   *slog.Logger // default slog.Default()
}

// Telemetry is what all workers of a proxy share.
type Telemetry struct {
	o       Options
	start   time.Time
	boot    uint32 // in ids of records
	workers []*Worker
	wake    chan struct{}

	mu        sync.Mutex // of what follows
	next      uint32     // number of the last entry
	routes    directory[routeSeries]
	clusters  directory[clusterSeries]
	listeners directory[listenerSeries]
	rules     directory[ruleSeries]

	census atomic.Pointer[census]
	config atomic.Pointer[settings] // wanted by the last Open

	grace        time.Duration // that outlets have to deliver when the proxy ends
	history      *history
	collected    atomic.Uint64 // events
	outletCounts [lastOutletCounts]outletCounts
}

// What outletCounts are of.
const (
	accessLogCounts = iota
	recordCounts
	otlpCounts
	zipkinCounts
	lastOutletCounts
)

var outletNames = [lastOutletCounts]string{"access_log", "records", "otlp", "zipkin"}

func (t *Telemetry) sayer() sayer { return t.config.Load().sayer(t.boot) }

// settings are the part of a configuration that the collector follows.
type settings struct {
	name, node string
	l7.Telemetry
}

func (s *settings) sayer(boot uint32) sayer { return sayer{s.node, boot} }

// New makes one. It starts nothing: see Run.
func New(o Options) *Telemetry {
	start := time.Now()
	if o.Workers <= 0 {
		o.Workers = 1
	}
	if o.Now == nil {
		o.Now = func() int64 { return int64(time.Since(start)) + 1 }
	}
	if o.History <= 0 {
		o.History = 1000
	}
	if o.Queue <= 0 {
		o.Queue = 1024
	}
	for o.Queue&(o.Queue-1) != 0 {
		o.Queue &= o.Queue - 1
	}
	o.Queue = max(o.Queue, 2)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	t := &Telemetry{o: o, start: start, wake: make(chan struct{}, 1)}
	for i := range o.Workers {
		var seed [32]byte
		rand.Read(seed[:]) // never fails
		t.workers = append(t.workers, &Worker{index: i, ring: newRing(o.Queue), wake: t.wake, rand: mrand.NewChaCha8(seed)})
	}
	t.boot = uint32(start.Unix())
	t.config.Store(&settings{})
	t.census.Store(&census{})
	t.history, t.grace = newHistory(o.History), 3*time.Second
	return t
}

// Worker number i, from 0.
func (t *Telemetry) Worker(i int) *Worker { return t.workers[i] }

// Open makes the Table of a configuration: ids of listeners and clusters are
// their places in cfg, those of rules come from Table.Rule. Where records, lines
// and spans go follows the last Open.
func (t *Telemetry) Open(cfg *l7.Config) *Table {
	tab := &Table{records: !cfg.Telemetry.NoRecords, metrics: !cfg.Telemetry.NoMetrics}
	if tr := cfg.Telemetry.Tracing; tr != nil {
		tab.threshold = threshold(tr.Sample)
		tab.traced = tr.OTLP != "" || tr.Zipkin != ""
		switch tr.Propagate {
		case "b3":
			tab.propagate = b3
		case "both":
			tab.propagate = both
		default:
			tab.propagate = w3c
		}
	}
	rules, first := ruleNames(cfg)
	tab.first = first
	clusters := make([]name, len(cfg.Clusters))
	for i := range cfg.Clusters {
		clusters[i].name = cfg.Clusters[i].Name
	}
	listeners := make([]name, len(cfg.Listeners))
	for i := range cfg.Listeners {
		listeners[i].name = cfg.Listeners[i].Name
	}
	tab.sockets, tab.endings, tab.ways = int32(len(listeners)), int32(len(clusters)), int32(len(rules))
	node := cfg.Name
	var policies []name
	if m := cfg.Mesh; m != nil {
		listeners, clusters, rules = openMesh(m, listeners, clusters, rules)
		policies = rulesOf(m)
		if m.Node != "" {
			node = m.Node
		}
	}
	now := t.o.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	tab.rules = make(map[policy.RuleID]*entry[ruleSeries], len(policies))
	for i, e := range t.rules.open(policies, len(t.workers), &t.next, now) {
		if i > 0 { // the first is for None
			tab.rules[policy.RuleID(policies[i-1].name)] = e
		}
	}
	c := newCensus(cfg, *t.census.Load(), now)
	t.census.Store(&c)
	tab.routes = t.routes.open(rules, len(t.workers), &t.next, now)
	tab.clusters = t.clusters.open(clusters, len(t.workers), &t.next, now)
	tab.listeners = t.listeners.open(listeners, len(t.workers), &t.next, now)
	t.config.Store(&settings{name: cfg.Name, node: node, Telemetry: cfg.Telemetry})
	return tab
}

func digits(n int) string { return strconv.Itoa(n) }
