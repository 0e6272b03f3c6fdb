// Package balance chooses the endpoint that a request goes to.
//
// In: a Cluster of the configuration, the time, a random number, a hash of the
// request, and how each try ended. Out: the index of an endpoint, and events:
// endpoints that were ejected or came back, with the reason.
//
// Three values, by who owns them. Shared is one for each cluster of the proxy:
// health and ejections by address, in atomics, kept over changes of the
// configuration. Plan is one for each configuration of a cluster: immutable
// tables, read by all workers. Picker is one for each worker and Plan: what
// this worker has under way and how long answers took, without locks.
//
// It never reads a clock, makes a random number, opens a socket, starts a
// goroutine or logs. See DESIGN.md for the formulas and where they are from.
package balance
