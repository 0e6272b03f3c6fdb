package node

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"moire.dev/moire/datapath"
	"moire.dev/moire/dns"
	"moire.dev/moire/snapshot"
)

// metrics shows the agent to Prometheus. Everything is read when it is asked
// for; nothing is counted twice.
type metrics struct {
	is     descriptions
	server *server
	kernel interface {
		Drops() []datapath.DropCount
		Sessions() (present, opened uint64)
	}
	shipped  *atomic.Uint64
	names    func() dns.Stats
	answered func() uint64
	health   func() []snapshot.Health
}

// maxRules of one reason have a time series of their own, those that dropped
// most; the rest is shown together.
const maxRules = 200

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("moire_node_"+name, help, labels, nil)
}

// descriptions of what is shown.
type descriptions struct {
	build, connected, age, pending, held, networks, endpoints, attachments    *prometheus.Desc
	drops, sessions, opened, shipped, lost, waiting, repairs, checks, answers *prometheus.Desc
	queries, forwarded, failed, refused, cached                               *prometheus.Desc
}

func newDescriptions() descriptions {
	return descriptions{
		build:       describe("build_info", "Constant 1, labelled with the version of the agent.", "version"),
		connected:   describe("control_plane_connected", "Whether the control plane hears this node now."),
		age:         describe("snapshot_age_seconds", "Seconds since the snapshot that is enforced came into force."),
		pending:     describe("snapshot_pending_seconds", "Seconds since a newer snapshot waits to be enforced; 0 when none does."),
		held:        describe("held", "Whether something waits for somebody's consent."),
		networks:    describe("networks", "Networks that this node knows."),
		endpoints:   describe("endpoints", "Addresses of Workloads that this node knows."),
		attachments: describe("attachments", "Interfaces of Workloads on this node, by state.", "state"),
		drops:       describe("dropped_packets_total", "Packets dropped, by reason and, when that is policy, by rule.", "reason", "rule"),
		sessions:    describe("sessions", "Sessions that were found by the last sweep, at most a few seconds ago."),
		opened:      describe("sessions_opened_total", "Sessions opened since the tables were made."),
		shipped:     describe("records_shipped_total", "Records that the control plane took."),
		lost:        describe("records_lost_total", "Records that were dropped before anybody took them."),
		waiting:     describe("records_waiting", "Records that wait to be shipped."),
		repairs:     describe("kernel_repairs_total", "Rows and programs in the kernel that somebody else had changed and that were repaired."),
		checks:      describe("checks", "Health checks that this node does and whose state is known, by state.", "state"),
		answers:     describe("dhcp_answers_total", "Answers to DHCP messages and router solicitations."),
		queries:     describe("dns_queries_total", "DNS queries that were read."),
		forwarded:   describe("dns_forwarded_total", "DNS questions that were asked of others."),
		failed:      describe("dns_forward_failures_total", "DNS questions that others did not answer."),
		refused:     describe("dns_dropped_total", "DNS queries beyond a limit or not to be answered."),
		cached:      describe("dns_cached_answers", "DNS answers of others that are remembered now."),
	}
}

func (d *descriptions) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		d.build, d.connected, d.age, d.pending, d.held, d.networks, d.endpoints, d.attachments, d.drops, d.sessions, d.opened,
		d.shipped, d.lost, d.waiting, d.repairs, d.checks, d.answers, d.queries, d.forwarded, d.failed, d.refused, d.cached,
	}
}

// Describe lists what there is.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.is.all() {
		ch <- d
	}
}

// Collect reads everything.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	v := m.server.loop.view.Load()
	st, now := &v.status, m.server.loop.now()
	gauge(m.is.build, 1, st.Agent)
	gauge(m.is.connected, truth(st.Connected))
	if !st.AppliedSince.IsZero() {
		gauge(m.is.age, now.Sub(st.AppliedSince).Seconds())
	}
	waits := 0.0
	if st.Wanted != st.Applied {
		waits = now.Sub(st.WantedSince).Seconds()
	}
	gauge(m.is.pending, waits)
	gauge(m.is.held, truth(st.Held != ""))
	gauge(m.is.networks, float64(st.Networks))
	gauge(m.is.endpoints, float64(st.Endpoints))
	states := map[string]int{string(pending): 0, string(addressed): 0, string(plugged): 0, string(ready): 0, string(leaving): 0}
	for _, a := range v.attachments {
		states[a.State]++
	}
	for state, n := range states {
		gauge(m.is.attachments, float64(n), state)
	}
	healthy, all := 0, m.health()
	for _, h := range all {
		if h.Healthy {
			healthy++
		}
	}
	gauge(m.is.checks, float64(healthy), "healthy")
	gauge(m.is.checks, float64(len(all)-healthy), "failing")
	for _, d := range drops(m.kernel.Drops()) {
		count(m.is.drops, d.Packets, d.Reason, d.Rule)
	}
	present, opened := m.kernel.Sessions()
	gauge(m.is.sessions, float64(present))
	count(m.is.opened, opened)
	count(m.is.shipped, m.shipped.Load())
	count(m.is.lost, m.server.loop.lost())
	gauge(m.is.waiting, float64(m.server.waiting()))
	count(m.is.repairs, st.Repairs)
	count(m.is.answers, m.answered())
	n := m.names()
	count(m.is.queries, n.Queries)
	count(m.is.forwarded, n.Forwarded)
	count(m.is.failed, n.Failed)
	count(m.is.refused, n.Dropped)
	gauge(m.is.cached, float64(n.Cached))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// drops adds up the Networks, and puts together what would be too many rules.
func drops(all []datapath.DropCount) []datapath.DropCount {
	type key struct{ reason, rule string }
	sums := map[key]uint64{}
	for _, d := range all {
		sums[key{d.Reason, d.Rule}] += d.Packets
	}
	out := make([]datapath.DropCount, 0, len(sums))
	for k, n := range sums {
		out = append(out, datapath.DropCount{Reason: k.reason, Rule: k.rule, Packets: n})
	}
	slices.SortFunc(out, func(a, b datapath.DropCount) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), -cmp.Compare(a.Packets, b.Packets), cmp.Compare(a.Rule, b.Rule))
	})
	var kept []datapath.DropCount
	seen := map[string]int{}
	for _, d := range out {
		if seen[d.Reason]++; seen[d.Reason] > maxRules {
			d.Rule = "others"
			if last := &kept[len(kept)-1]; last.Rule == d.Rule && last.Reason == d.Reason {
				last.Packets += d.Packets
				continue
			}
		}
		kept = append(kept, d)
	}
	return kept
}
