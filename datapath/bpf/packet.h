// SPDX-License-Identifier: Apache-2.0
// What is known of a packet on its way through the program, and the memory to
// work in: one packet at a time per CPU.
#pragma once
#include "tables.h"

enum kind {
	K_FLOW,	 // may open a session or belong to one
	K_REPLY, // may only belong to one: echo replies
	K_ERROR, // ICMP error; key is that of the packet it complains about
	K_ND,	 // neighbour discovery, router discovery, multicast listeners
	K_ARP,
};

struct packet {
	struct session_key key;
	union addr src, dst;
	union addr inner_src; // of the packet that an ICMP error is about
	u32 vni;
	u32 ifindex, node; // where it came from: interface here, or node there
	u32 mtu;	   // of the overlay, for the sender
	u32 watched;	   // watches that want to see it, see watch.h
	u16 sport, dport;  // network order
	u16 l4;		   // offset of the transport header
	u16 headers;	   // length of the IP and transport headers
	u8 eth_dst[6], eth_src[6];
	u8 v6, proto, kind, tcp, src_is_a, icmp;
	u8 later; // a fragment without transport header
	u8 side;  // of its session, once that is known
	u8 outside; // it came from outside, see arrive.h
	u8 unknown; // no session and no alias has its key, as was just seen
	u8 meshed;  // it came from an interface for which a proxy speaks
	u8 spoken;  // and a socket of a proxy made it, see mesh.h
	u8 fronted; // it asks for a Service that is behind a proxy
	u8 mute;    // a proxy should have made it, and did not
};

struct tuple { // a packet, as one end of its session sees it
	union addr src, dst;
	u32 vni;
	u16 sport, dport;
};

struct outer4 {
	struct eth eth;
	struct ipv4 ip;
	struct udp udp;
	struct vxlan vxlan;
	struct eth inner;
} packed;

struct outer6 {
	struct eth eth;
	struct ipv6 ip;
	struct udp udp;
	struct vxlan vxlan;
	struct eth inner;
} packed;

#define IP_HEADERS (ETH_LEN + sizeof(struct ipv6))
#define QUOTE 68 // of the packet that an ICMP error of ours is about

struct big4 {
	struct ipv4 ip;
	struct icmp icmp;
	u8 quote[QUOTE];
};

struct big6 {
	struct ipv6 ip;
	struct icmp icmp;
	u8 quote[QUOTE];
};

struct reset4 {
	struct ipv4 ip;
	struct tcp tcp;
};

struct reset6 {
	struct ipv6 ip;
	struct tcp tcp;
};

struct tunnel {
	union addr src;
	u32 vni;
	u32 base; // offset of the inner frame
	u8 eth[12];
	u16 proto;
};

struct refusal { // what reject is about
	u32 reason;
	u32 rule[2];
	u32 shadow;
};

// One packet at a time per CPU: what is too large for the stack.
struct work {
	struct packet packet; // first: see work_of
	struct event event;
	struct denied_key denied;
	struct tuple from, to;
	struct session_key seen; // a key in the view of an end
	struct alias alias;
	struct hop hop;
	struct refusal refused;
	struct tunnel tunnel;
	union {
		union addr pair[4];
		struct bpf_fib_lookup fib;
		struct big4 big4;
		struct big6 big6;
		struct reset4 reset4;
		struct reset6 reset6;
		struct outer4 outer4;
		struct outer6 outer6;
	};
};

TABLE(scratch, PERCPU_ARRAY, u32, struct work, 1, 0);

inline_ struct work *the_work(void)
{
	u32 zero = 0;
	return bpf_map_lookup_elem(&scratch, &zero);
}
