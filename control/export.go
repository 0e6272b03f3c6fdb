package control

import "github.com/prometheus/client_golang/prometheus"

// metrics shows the control plane to Prometheus. Everything is read when it is
// asked for.
type metrics struct {
	c *Control
	leading, nodes, behind, objects, problems, kept,
	received, lost, ipfixLost *prometheus.Desc
}

func newMetrics(c *Control) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("moire_control_"+name, help, labels, nil)
	}
	return &metrics{c: c,
		leading:   desc("leading", "Whether this process allocates addresses and numbers now."),
		nodes:     desc("nodes", "Nodes that this process knows, by whether they are connected to it.", "connected"),
		behind:    desc("nodes_behind", "Connected nodes that have not applied what they should be yet."),
		objects:   desc("objects", "Objects of intent, by kind.", "kind"),
		problems:  desc("problems", "Objects with which something is wrong."),
		kept:      desc("records", "Records that are kept in memory."),
		received:  desc("records_received_total", "Records that nodes shipped to this process."),
		lost:      desc("records_lost_total", "Records that nodes had to drop before they were shipped, by node.", "node"),
		ipfixLost: desc("ipfix_lost_total", "Records that the IPFIX collector did not take."),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.leading, m.nodes, m.behind, m.objects, m.problems, m.kept, m.received, m.lost, m.ipfixLost} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	leading := 0.0
	if m.c.Leading() {
		leading = 1
	}
	gauge(m.leading, leading)
	var connected, away, behind float64
	for _, n := range m.c.nodeStates() {
		switch {
		case !n.Connected:
			away++
		case n.Applied != n.Wanted:
			behind++
			connected++
		default:
			connected++
		}
	}
	gauge(m.nodes, connected, "true")
	gauge(m.nodes, away, "false")
	gauge(m.behind, behind)
	if f := m.c.loop.current.Load(); f != nil {
		for kind, n := range map[string]int{"Domain": len(f.in.Domains), "Network": len(f.in.Networks), "Workload": len(f.in.Workloads),
			"Policy": len(f.in.Policies), "Link": len(f.in.Links), "Service": len(f.in.Services), "FloatingIP": len(f.in.FloatingIPs), "Node": len(f.in.Nodes)} {
			gauge(m.objects, float64(n), kind)
		}
		gauge(m.problems, float64(len(f.problems)))
	}
	gauge(m.kept, float64(m.c.archive.Len()))
	count(m.received, float64(m.c.received.Load()))
	for node, n := range m.c.archive.Lost() {
		count(m.lost, float64(n), node)
	}
	if m.c.ipfix != nil {
		count(m.ipfixLost, float64(m.c.ipfix.Lost()))
	}
}
