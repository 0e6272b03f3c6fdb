// Package health finds out what is healthy: it checks interfaces of Workloads
// on this node from inside their Networks, by echo requests, TCP connections,
// HTTP requests or gRPC.
//
// In: the Checks of a snapshot. Out: the Health of each, as soon as it is
// known, and whenever it changes. One loop owns all state; at most Probes of
// them are under way at once, each bounded by its timeout.
// It never decides what follows from that (the compiler does), and never talks
// to anything but what the Checks name.
package health
