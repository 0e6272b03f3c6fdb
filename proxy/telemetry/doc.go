// Package telemetry tells what a proxy did: counters and histograms, request
// records, the access log, trace context and spans.
//
// In: what a worker says of its exchanges and connections (Worker), by the ids
// of a configuration (Table), and the heads that carry trace context. Out:
// Prometheus' text (Telemetry.WriteMetrics), records (Last, Follow, a file or a
// socket), lines of the access log, spans to collectors (OTLP, Zipkin).
//
// A Worker is used by one goroutine. What it writes nobody else writes; it takes
// no lock, allocates nothing once warm, makes no system call and never waits:
// when the one who reads is too slow, records are lost and counted. Everything
// else is done by Telemetry.Run. This room never decides about a request.
package telemetry
