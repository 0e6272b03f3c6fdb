// Package explain is the oracle: what happens to this packet or request, step by step.
//
// In: a Query and the snapshots of the nodes. Out: an Answer with every step
// in packet order, the verdict of each end and the rule or default that
// decided. It asks the same decision code as the data path (snapshot/policy), and
// of requests the routes of the proxy (proxy/route),
// and sees what the nodes see, nothing else. Where a hash chooses (backends of a
// Service, instances of a function) it takes every way, tells all of them, and
// allows only what each of them allows.
// It is pure: no clock, no I/O, no state; it never reads intent.
package explain
