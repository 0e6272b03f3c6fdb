// SPDX-License-Identifier: Apache-2.0
// The tables: what the agent writes (control to rules) and what the programs
// write (sessions to lost). Everything is keyed by network id and address.
// A change of any struct here changes the layout, and so the pin path.
#pragma once
#include "kernel.h"

union addr { // IPv4 is ::ffff:a.b.c.d
	u32 w[4];
	u64 d[2];
};

struct settings { // one row
	u32 epoch; // raised after every change of a table: sessions judge again
	u32 uplink;
	u32 v6; // the underlay is IPv6
	u32 share; // most rows of sessions that one interface fills
	u32 watch; // somebody captures or traces
	u32 outside; // networks reach the outside, or it reaches them
	union addr self; // underlay address of this node
};

struct iface { // by ifindex of the host side
	u32 vni;
	u32 mtu; // largest IP packet that the overlay carries
	u8 mac[6];
	u8 closed; // the network is not in the snapshot
	u8 dhcp;   // the agent answers DHCP and router solicitations
	u8 limits; // see rate.h
	u8 meshed; // a proxy speaks for it, see mesh.h
	u8 pad[2];
	u32 throttle; // TCP leaves by this one and comes back at another
	u32 as;	      // this is where it comes back: of which interface
	u64 proxy;    // number of the proxy
	u64 project;  // number of the project
};

struct addr_key {
	union addr addr;
	u32 vni;
	u32 pad;
};

struct endpoint {
	struct addr_key self; // a row that was replaced while it is read shows here
	struct addr_key home; // where it really is, of a linked network; vni 0: at self
	u32 ifindex;	      // here, or
	u32 node;	      // there: index of nodes, or neither: not attached
	u32 identity;
	u32 egress, ingress; // policy set ids, 0: closed
	u32 chain;	     // number of the chain in front, 0: none
	u8 mac[6];
	u16 how;
};

struct guise_key { // who is seen, and from which network
	struct addr_key home;
	u32 vni;
	u32 pad;
};

#define HOW_TAP 1 // ifindex is a device of its own, not the end of a pair: leave by it
#define HOW_LIMITED 2 // what goes there has a limit
#define HOW_PLATFORM 4 // the node's own: not judged; egress and ingress are numbers of rules
#define HOW_FUNCTION 8 // of a hop: a network function, not the end itself
#define HOW_OUTSIDE 16 // of a hop: no network, the outside
#define HOW_FOOT 64 // of the node's own: an address that is no other node's, so its sessions may go there
#define HOW_TRANSPARENT 32 // a function that keeps the MAC addresses of the ends
#define HOW_MESH 128 // of an endpoint: its workload is in the mesh
#define HOW_STRICT 256 // and takes no plain bytes
#define HOW_GATE 512 // nobody but its proxy is there

#define ROUTE_SUBNET 1
#define ROUTE_GATEWAY 2

struct route_key {
	u32 bits; // counted from vni
	u32 vni;
	u32 family; // 4 or 6
	u8 addr[16];
};

struct node { // by index; 0 is nobody
	union addr addr;
	u32 csum;   // sum of the outer IPv4 header without its length
	u32 onlink; // the neighbour is the node itself: no route lookup needed
};

struct set_row { // policy set id -> what it holds; written last, removed first
	u8 digest[32];
};

#define SET_CLASSES 0x80000000 // in a set id: the set has address classes

struct policy_key {
	u32 bits; // counted from set
	u32 set;
	u32 class;
	u32 identity;
	u8 proto;
	u8 port[2]; // network order
	u8 pad;
};

#define PROXIED 2 // in allow

struct verdict {
	u32 rule;
	u32 shadow; // rule, 0: no different
	u8 allow; // PROXIED: to a proxy only, which decides about each request
	u8 tier;
	u8 shadow_allow;
	u8 pad;
};

struct session_key { // a is the smaller end, so both directions have one key
	union addr a, b;
	u32 vni;
	u16 aport, bport;
	u8 proto;
	u8 pad[7];
};

struct hop {
	u32 ifindex;
	u32 node;
	u8 mac[6];
	u16 how;
};

#define G_SERVICE 1  // end 0 asked for a Service, end 1 is the backend
#define G_LINK 2     // end 1 is in a linked network
#define G_FLOATING 3 // end 1 is behind a FloatingIP
#define G_OUTSIDE 4  // end 1 is outside

#define G_NEW 2 // in flags: no port was taken for it yet
#define G_AWAY 1 // in flags: translated by another node; only says where the end is

// How one end of a session sees it, where that is not as it is told. Kind 0: as
// it is told. See guise.h.
struct guise {
	union addr addr[2]; // of the originator and of the responder
	u32 vni;
	u16 port[2]; // network order; of ICMP, the id of the originator
	u8 kind, flags;
	u16 backend; // index, of a Service or FloatingIP
	u32 service; // its id, 0: was not chosen
};

#define S_REPLY 1
#define S_FIN_FORWARD 2
#define S_FIN_REPLY 4
#define S_CLOSED 8
#define S_ENDED 16 // the ended event was sent
#define S_ODD 32   // not for the fast path alone: translated, or by way of a function
#define S_PROXY_0 64 // a proxy speaks for that end, which is here, see mesh.h
#define S_PROXY_1 128

#define J_EGRESS 1 // judged here
#define J_INGRESS 2
#define J_SERVED_0 4 // an end is the node's own: set holds the number of the rule
#define J_SERVED_1 8
#define J_PROXY_0 16 // a verdict wants a proxy there
#define J_PROXY_1 32
#define J_MESH 64 // both ends are in the mesh
#define J_STRICT 128 // the responder takes no plain bytes
#define J_GROUND (J_EGRESS | J_INGRESS | J_SERVED_0 | J_SERVED_1 | J_MESH | J_STRICT) // what the verdict stands on

// Index 0 is the originator and egress, index 1 the responder and ingress. What
// every packet needs comes first, in as few cache lines as may be.
struct session {
	u64 created, expires; // ns since boot
	u32 epoch;
	u32 timeout; // s
	u8 tier[2];
	u8 shadow_allow[2];
	u8 judged; // J_
	u8 a_first;
	u8 flags;  // S_
	u8 reason; // not 0: no longer allowed, kept so that replies stay denied
	u64 packets[2], bytes[2];
	struct hop hop[2];
	u32 identity[2];
	u32 set[2];
	u32 rule[2];
	u32 shadow[2];
	struct guise guise[2]; // last: see PLAIN_SESSION
};

// Of a session without guises.
#define PLAIN_SESSION __builtin_offsetof(struct session, guise)
#define PLAIN_EVENT (__builtin_offsetof(struct event, session) + PLAIN_SESSION)

struct alias { // the key of a session in the view of one of its ends
	struct session_key session;
	u32 end;
	u32 pad;
};

struct fragment_key {
	union addr src, dst;
	u32 vni;
	u32 id;
	u32 ifindex, node; // where it came from: nobody speaks for another
	u8 proto;
	u8 pad[7];
};

struct ports {
	u16 sport, dport;
};

#define EVENT_STARTED 1
#define EVENT_ENDED 2
#define EVENT_DENIED 3

struct event {
	u32 kind;
	u32 reason;
	u64 count; // packets denied since the last event about the same
	u64 time;
	struct session_key key;
	struct session session;
};

struct denied_key {
	struct session_key key;
	u32 reason;
	u32 rule;
};

struct denial {
	u64 last; // ns since boot
	u64 count;
};

struct allowance { // of one sender, for the events that it causes by denials
	u64 since; // ns since boot
	u64 told;
};

struct share { // of the session table, that an interface has
	u64 since; // ns since boot: when it was counted
	u64 count;
};

struct drop_key {
	u32 reason;
	u32 rule;
	u32 vni;
};

#define TABLE(name, kind, k, v, max, how)                                                          \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_##kind);                                                 \
		__type(key, k);                                                                    \
		__type(value, v);                                                                  \
		__uint(max_entries, max);                                                          \
		__uint(map_flags, how);                                                            \
	} name SEC(".maps")

TABLE(control, ARRAY, u32, struct settings, 1, 0);
TABLE(ifaces, HASH, u32, struct iface, 16384, BPF_F_NO_PREALLOC);
TABLE(networks, HASH, u32, u32, 16384, BPF_F_NO_PREALLOC);
TABLE(endpoints, HASH, struct addr_key, struct endpoint, 262144, BPF_F_NO_PREALLOC);
TABLE(guises, HASH, struct guise_key, union addr, 262144, BPF_F_NO_PREALLOC);
TABLE(routes, LPM_TRIE, struct route_key, u32, 65536, BPF_F_NO_PREALLOC);
TABLE(nodes, ARRAY, u32, struct node, 8192, 0);
TABLE(vteps, HASH, union addr, u32, 8192, BPF_F_NO_PREALLOC);
TABLE(classes, LPM_TRIE, struct route_key, u32, 262144, BPF_F_NO_PREALLOC); // vni = set
TABLE(policy, LPM_TRIE, struct policy_key, struct verdict, 1048576, BPF_F_NO_PREALLOC);
TABLE(sets, HASH, u32, struct set_row, 65536, BPF_F_NO_PREALLOC);
TABLE(rules, HASH, u32, struct rule_name, 65536, BPF_F_NO_PREALLOC);

TABLE(sessions, LRU_HASH, struct session_key, struct session, 131072, 0);
TABLE(aliases, LRU_HASH, struct session_key, struct alias, 131072, 0);
TABLE(visitors, LRU_HASH, struct addr_key, u64, 16384, 0); // who came over a FloatingIP; the router answers for them
TABLE(throng, LRU_HASH, struct session_key, struct alias, 32768, 0); // aliases of the crowd
TABLE(crowd, LRU_HASH, struct session_key, struct session, 32768, 0); // of who has more than a share
TABLE(fragments, LRU_HASH, struct fragment_key, struct ports, 8192, 0);
TABLE(denials, LRU_HASH, struct denied_key, struct denial, 8192, 0);
TABLE(allowances, LRU_HASH, u64, struct allowance, 4096, 0);
TABLE(shares, LRU_HASH, u32, struct share, 16384, 0);
TABLE(opened, PERCPU_ARRAY, u32, u64, 1, 0); // rows made in sessions
TABLE(drops, PERCPU_HASH, struct drop_key, u64, 8192, BPF_F_NO_PREALLOC);
TABLE(lost, PERCPU_ARRAY, u32, u64, 1, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");
