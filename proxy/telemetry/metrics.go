package telemetry

import (
	"bufio"
	"io"
	"slices"
	"strconv"
	"strings"
)

// What is shown as a name of its own for each counter: name, what it counts,
// and labels where several counters are one family.
type family struct{ name, help, label, value string }

// short is the name without what all have in common.
func (f family) short() string {
	s := strings.TrimSuffix(strings.TrimPrefix(f.name, "moire_proxy_"), "_total")
	if f.value != "" {
		s += "_" + f.value
	}
	return s
}

var routeFamilies = [lastRouteCounter]family{
	Limited:     {"moire_proxy_rate_limited_total", "Requests refused by a rate limit of their rule.", "", ""},
	FaultAborts: {"moire_proxy_faults_total", "Faults put into requests on purpose.", "kind", "abort"},
	FaultDelays: {"moire_proxy_faults_total", "", "kind", "delay"},
	Mirrored:    {"moire_proxy_mirrored_total", "Copies of requests sent to a mirror.", "", ""},
	Hedged:      {"moire_proxy_hedged_total", "Second tries that did not wait for the first.", "", ""},
}

var clusterFamilies = [lastClusterCounter]family{
	ConnectFailures:       {"moire_proxy_upstream_connect_failures_total", "Connections to endpoints that could not be made.", "reason", "refused"},
	ConnectTimeouts:       {"moire_proxy_upstream_connect_failures_total", "", "reason", "timeout"},
	UpstreamHandshakes:    {"moire_proxy_upstream_tls_handshakes_total", "TLS handshakes done with endpoints.", "", ""},
	UpstreamTLSFailures:   {"moire_proxy_upstream_tls_failures_total", "TLS handshakes with endpoints that failed.", "", ""},
	Retried:               {"moire_proxy_retries_total", "Tries after the first.", "", ""},
	RetriesRefused:        {"moire_proxy_retries_refused_total", "Tries that budget or circuit did not allow.", "", ""},
	Ejections:             {"moire_proxy_ejections_total", "Endpoints put aside by outlier detection.", "", ""},
	OverflowConnections:   {"moire_proxy_circuit_overflows_total", "What a circuit limit refused.", "limit", "connections"},
	OverflowPending:       {"moire_proxy_circuit_overflows_total", "", "limit", "pending"},
	OverflowRequests:      {"moire_proxy_circuit_overflows_total", "", "limit", "requests"},
	ChecksFailed:          {"moire_proxy_health_check_failures_total", "Active health checks that failed.", "", ""},
	Panics:                {"moire_proxy_panics_total", "Choices made among all endpoints, because too few were healthy.", "", ""},
	UpstreamBytesSent:     {"moire_proxy_upstream_sent_bytes_total", "Bytes of bodies sent to endpoints.", "", ""},
	UpstreamBytesReceived: {"moire_proxy_upstream_received_bytes_total", "Bytes of bodies received from endpoints.", "", ""},
}

var listenerFamilies = [lastListenerCounter]family{
	Refused:       {"moire_proxy_connections_refused_total", "Connections beyond a limit.", "", ""},
	Handshakes:    {"moire_proxy_tls_handshakes_total", "TLS handshakes done with callers.", "", ""},
	Resumptions:   {"moire_proxy_tls_resumptions_total", "TLS handshakes with callers that resumed a session.", "", ""},
	TLSFailures:   {"moire_proxy_tls_failures_total", "TLS handshakes with callers that failed.", "", ""},
	Malformed:     {"moire_proxy_malformed_total", "Requests and connections that cannot be read.", "", ""},
	SlowCallers:   {"moire_proxy_slow_callers_total", "Connections cut off because the caller was too slow.", "", ""},
	BytesReceived: {"moire_proxy_received_bytes_total", "Bytes received from callers, inside TLS.", "", ""},
	BytesSent:     {"moire_proxy_sent_bytes_total", "Bytes sent to callers, inside TLS.", "", ""},
}

var classNames = [classes]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// shown are the bounds that Prometheus is told: 1, 2 and 5 of each power of ten
// from 100 µs to 50 s, by their places in bounds.
var shown = func() (s []int) {
	for i, b := range bounds {
		switch i % 9 {
		case 0, 1, 4:
			if b >= 100_000 && b <= 50e9 {
				s = append(s, i)
			}
		}
	}
	return s
}()

// text writes Prometheus' format.
type text struct {
	w   *bufio.Writer
	num []byte
}

func (x *text) family(name, kind, help string) {
	x.strings("# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n")
}

func (x *text) strings(all ...string) {
	for _, s := range all {
		x.w.WriteString(s) // the error is told by Flush
	}
}

// sample writes one line; labels are names and values in turn, those with an
// empty name are left out.
func (x *text) sample(name string, v uint64, labels ...string) {
	x.num = strconv.AppendUint(x.num[:0], v, 10)
	x.line(name, labels)
}

func (x *text) float(name string, v float64, labels ...string) {
	x.num = strconv.AppendFloat(x.num[:0], v, 'g', -1, 64)
	x.line(name, labels)
}

func (x *text) line(name string, labels []string) {
	x.w.WriteString(name)
	open := byte('{')
	for i := 0; i+1 < len(labels); i += 2 {
		if labels[i] == "" {
			continue
		}
		x.w.WriteByte(open)
		open = ','
		x.w.WriteString(labels[i])
		x.w.WriteString(`="`)
		x.value(labels[i+1])
		x.w.WriteByte('"')
	}
	if open == ',' {
		x.w.WriteByte('}')
	}
	x.w.WriteByte(' ')
	x.w.Write(x.num)
	x.w.WriteByte('\n')
}

// value of a label, escaped.
func (x *text) value(s string) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			x.w.WriteString(`\\`)
		case '"':
			x.w.WriteString(`\"`)
		case '\n':
			x.w.WriteString(`\n`)
		default:
			x.w.WriteByte(s[i])
		}
	}
}

// each writes one family with a line for each sum that has something to show.
func (x *text) each(all []sum, name, kind, help string, line func(*sum)) {
	if len(all) == 0 {
		return
	}
	x.family(name, kind, help)
	for i := range all {
		line(&all[i])
	}
}

func (x *text) histogram(name string, r *reading, labels ...string) {
	seen, from := uint64(0), 0
	with := append(labels, "le", "")
	for _, i := range shown {
		for ; from <= i; from++ {
			seen += r.bucket[from]
		}
		with[len(with)-1] = strconv.FormatFloat(float64(bounds[i])/1e9, 'g', -1, 64)
		x.sample(name+"_bucket", seen, with...)
	}
	with[len(with)-1] = "+Inf"
	x.sample(name+"_bucket", r.count, with...)
	x.float(name+"_sum", float64(r.sum)/1e9, labels...)
	x.sample(name+"_count", r.count, labels...)
}

// counters writes the families of one sort.
func (x *text) counters(all []sum, families []family, labels func(*sum) []string) {
	if len(all) == 0 {
		return
	}
	for c, f := range families {
		if f.help != "" {
			x.family(f.name, "counter", f.help)
		}
		for i := range all {
			x.sample(f.name, all[i].counts[c], append(labels(&all[i]), f.label, f.value)...)
		}
	}
}

// WriteMetrics writes everything that is counted in Prometheus' text format,
// version 0.0.4. Labels are names of the configuration and fixed words only:
// nothing that a caller sends becomes one. A rule, cluster or listener is shown
// once it was used, and ten minutes longer than it is configured.
func (t *Telemetry) WriteMetrics(w io.Writer) error {
	x := &text{w: bufio.NewWriterSize(w, 32<<10)}
	f := t.figures()
	x.routes(f.routes)
	x.clusters(f.clusters)
	x.listeners(f.listeners)
	x.rules(f.rules)
	x.own(t)
	return x.w.Flush()
}

func routeLabels(s *sum) []string    { return []string{"route", s.name.name, "rule", orNone(s.rule)} }
func clusterLabels(s *sum) []string  { return []string{"cluster", s.name.name} }
func listenerLabels(s *sum) []string { return []string{"listener", s.name.name} }

func orNone(s string) string {
	if s == "" {
		return noName
	}
	return s
}

func (x *text) routes(all []sum) {
	x.each(all, "moire_proxy_requests_total", "counter", "Requests that are over, by class of the answer's status; none: the caller got no answer.", func(s *sum) {
		for c, n := range s.class {
			if n > 0 {
				x.sample("moire_proxy_requests_total", n, append(routeLabels(s), "code", classNames[c])...)
			}
		}
	})
	x.each(all, "moire_proxy_grpc_requests_total", "counter", "Calls of gRPC that are over, by status.", func(s *sum) {
		for c, n := range s.grpc {
			if n > 0 {
				x.sample("moire_proxy_grpc_requests_total", n, append(routeLabels(s), "status", grpcNames[c])...)
			}
		}
	})
	x.each(all, "moire_proxy_request_flags_total", "counter", "Requests with something special, by response flag.", func(s *sum) {
		for c, n := range s.flags {
			if n > 0 {
				x.sample("moire_proxy_request_flags_total", n, append(routeLabels(s), "flag", flagNames[c])...)
			}
		}
	})
	x.each(all, "moire_proxy_requests_active", "gauge", "Requests that go on now.", func(s *sum) {
		x.sample("moire_proxy_requests_active", s.active(), routeLabels(s)...)
	})
	x.each(all, "moire_proxy_request_duration_seconds", "histogram", "From the head of a request to the end of its answer.", func(s *sum) {
		x.histogram("moire_proxy_request_duration_seconds", &s.duration, routeLabels(s)...)
	})
	x.each(all, "moire_proxy_request_bytes_total", "counter", "Bytes of the bodies of requests.", func(s *sum) {
		x.sample("moire_proxy_request_bytes_total", s.in, routeLabels(s)...)
	})
	x.each(all, "moire_proxy_answer_bytes_total", "counter", "Bytes of the bodies of answers.", func(s *sum) {
		x.sample("moire_proxy_answer_bytes_total", s.out, routeLabels(s)...)
	})
	x.counters(all, routeFamilies[:], routeLabels)
}

func (x *text) clusters(all []sum) {
	x.each(all, "moire_proxy_upstream_requests_total", "counter", "Tries at endpoints that are over, by class of the answer's status; none: there was no answer.", func(s *sum) {
		for c, n := range s.class {
			if n > 0 {
				x.sample("moire_proxy_upstream_requests_total", n, append(clusterLabels(s), "code", classNames[c])...)
			}
		}
	})
	x.each(all, "moire_proxy_upstream_requests_active", "gauge", "Tries at endpoints that go on now.", func(s *sum) {
		x.sample("moire_proxy_upstream_requests_active", s.active(), clusterLabels(s)...)
	})
	x.each(all, "moire_proxy_upstream_duration_seconds", "histogram", "From the begin of a try to the end of the endpoint's answer.", func(s *sum) {
		x.histogram("moire_proxy_upstream_duration_seconds", &s.duration, clusterLabels(s)...)
	})
	x.each(all, "moire_proxy_upstream_connections_total", "counter", "Connections made to endpoints.", func(s *sum) {
		x.sample("moire_proxy_upstream_connections_total", s.opened, clusterLabels(s)...)
	})
	x.each(all, "moire_proxy_upstream_connections_active", "gauge", "Connections to endpoints that are open.", func(s *sum) {
		x.sample("moire_proxy_upstream_connections_active", s.connections(), clusterLabels(s)...)
	})
	x.counters(all, clusterFamilies[:], clusterLabels)
}

func (x *text) listeners(all []sum) {
	x.each(all, "moire_proxy_connections_total", "counter", "Connections accepted from callers.", func(s *sum) {
		x.sample("moire_proxy_connections_total", s.opened, listenerLabels(s)...)
	})
	x.each(all, "moire_proxy_connections_active", "gauge", "Connections of callers that are open.", func(s *sum) {
		x.sample("moire_proxy_connections_active", s.connections(), listenerLabels(s)...)
	})
	x.counters(all, listenerFamilies[:], listenerLabels)
	if !slices.ContainsFunc(all, func(s sum) bool { return s.drops != [lastDrop]uint64{} }) {
		return
	}
	x.each(all, "moire_proxy_drops_total", "counter", "Connections and requests of the mesh that were refused without a rule, by reason.", func(s *sum) {
		for d, n := range s.drops {
			if n > 0 {
				x.sample("moire_proxy_drops_total", n, append(listenerLabels(s), "reason", dropNames[d])...)
			}
		}
	})
}

var decisionNames = [...]string{"allow", "deny", "shadow-deny"}

func (x *text) rules(all []sum) {
	x.each(all, "moire_proxy_decisions_total", "counter", "Requests and connections of the mesh by the rule that decided; shadow-deny: a Policy in mode audit would have denied.", func(s *sum) {
		for i, n := range s.decided {
			if n > 0 {
				x.sample("moire_proxy_decisions_total", n, "rule", s.name.name, "tier", s.rule, "verdict", decisionNames[i])
			}
		}
	})
}
