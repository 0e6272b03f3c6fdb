// Package stage sets up what the judges of the proxy need: the proxy under
// test, peers in its place, back ends, certificates and free ports.
//
// In: a snapshot/l7 Config, and which proxy is to be it: moire, or nginx,
// haproxy or envoy, for which the part of Config that the judges use is
// translated. Out: running processes on loopback, their logs, and what they
// cost (resident memory, processor time).
// It never judges, sends traffic to no other machine, and ends only processes
// that it started, by their number.
package stage
