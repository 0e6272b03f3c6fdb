// Package scrape lets Prometheus read what a process counts.
//
// In: a collector, and an address to listen at. Out: /metrics, with what Go and
// the process themselves count beside it. It never counts anything itself, and
// nothing else is served there.
package scrape
