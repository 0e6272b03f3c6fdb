// Package dhcp tells machines what the node knows of their interfaces: it
// answers DHCPv4 (RFC 2131, 2132, 3442, 3397), DHCPv6 (RFC 8415, 3646) and
// router solicitations (RFC 4861, 8106) on taps, and on the pairs of Workloads
// that ask for their addresses themselves.
//
// In: Interfaces, and the frames that come in at the node's end of each. Out:
// frames to the same interface. Answer decides and is pure; Server listens.
// It never gives out an address by itself (what an interface has is known
// before), never answers one interface about another, and never keeps anything
// of what a machine said.
package dhcp
