// SPDX-License-Identifier: Apache-2.0
// Why a packet was dropped. The numbers are ours, the names (reasons.go) are
// public: add at the end, never renumber.
#pragma once

enum reason {
	R_NONE,
	R_POLICY,	  // a rule or default; the rule id says which
	R_SPOOFED_MAC,	  // source MAC is not the interface's
	R_SPOOFED_IP,	  // source address is not the interface's
	R_SPOOFED_ARP,	  // ARP sender is not the interface's
	R_SPOOFED_ND,	  // neighbour discovery that only routers or others may send
	R_NO_NEIGHBOUR,	  // ARP or solicitation for an address that nobody has
	R_NO_ROUTE,	  // destination is no endpoint of the network
	R_NOT_ATTACHED,	  // destination is known but has no interface yet
	R_NO_NETWORK,	  // interface or its network is not in the snapshot
	R_UNKNOWN_VTEP,	  // VXLAN from an address that is no node
	R_FOREIGN_SOURCE, // inner source does not sit on the node that sent it
	R_BAD_PACKET,	  // malformed
	R_UNSUPPORTED,	  // VLAN, routing header, protocol that is not IP
	R_TOO_BIG,	  // larger than the overlay carries; the sender is told
	R_CT_UNRELATED,	  // ICMP error or reply that belongs to no session
	R_CT_FRAGMENT,	  // fragment whose first part was not seen
	R_MULTICAST,	  // multicast or broadcast, quietly
	R_FAILED,	  // a helper of the kernel refused
	R_LIMIT,	  // more than the rate limit of the interface or Network
	R_NO_SERVICE,	  // a Service address, but not a port of it
	R_NO_BACKEND,	  // a Service without a backend that takes sessions
	R_CHAIN_DOWN,	  // no healthy instance of the function in front
	R_NO_EXIT,	  // the network does not lead outside
	R_HOST_CLOSED,	  // a node's own address, on a port that is not open to workloads
	R_NO_PORT,	  // no port is left for another session under that address
	R_TTL,		  // it has been on its way for too long
	R_NEEDS_PROXY,	  // only a proxy may say this, and it was not one
	R_NO_PROXY,	  // a proxy is needed, and is not there
	R_NOT_IN_MESH,	  // plain bytes to who takes none
};
