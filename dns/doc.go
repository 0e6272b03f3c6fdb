// Package dns answers names inside Networks.
//
// In: snapshots (Zones), sockets that the node has bound to one Network each,
// and a way to dial from inside a Network or by the host. Out: answers. What is
// answered depends on the Network of the socket alone: Workloads, Services and
// FloatingIPs that can be reached from there, the tenant's own records, and
// what other servers say, remembered for that Network only.
// It never opens a socket by itself, never mixes Networks, and never sends an
// answer that a Policy hangs on before the node says that the kernel knows.
// DESIGN.md has the invariants.
package dns
