// SPDX-License-Identifier: Apache-2.0
// What we use of the kernel's headers, and the headers of packets.
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;
typedef __s32 s32;

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define inline_ static __always_inline
#define step static __attribute__((noinline))
#define alone __attribute__((noinline)) // verified once, whoever calls it
#define barrier() asm volatile("" ::: "memory")

#define ACT_NEXT -1 // whoever comes after us, and then the stack
#define ACT_DROP 2

#define LOOPBACK 1 // its index, in every namespace
#define ETH_LEN 14
#define ETH_IPV4 bpf_htons(0x0800)
#define ETH_ARP bpf_htons(0x0806)
#define ETH_IPV6 bpf_htons(0x86dd)
#define VXLAN_PORT bpf_htons(4789)
#define FAMILY_IPV4 2
#define FAMILY_IPV6 10

#define DECAP_IPV4 (1ULL << 7) // of bpf_skb_adjust_room, since Linux 6.3
#define DECAP_IPV6 (1ULL << 8)

#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ICMPV6 58
#define PROTO_SCTP 132
#define PROTO_ARP 254 // in events only

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

#define packed __attribute__((packed))

struct eth {
	u8 dst[6], src[6];
	u16 proto;
} packed;

struct ipv4 {
	u8 ihl : 4, version : 4; // little-endian only, like the objects
	u8 tos;
	u16 len, id, frag;
	u8 ttl, proto;
	u16 csum;
	u32 src, dst;
} packed;

struct ipv6 {
	u32 flow;
	u16 len;
	u8 next, hops;
	u32 src[4], dst[4];
} packed;

struct udp {
	u16 src, dst, len, csum;
} packed;

struct tcp {
	u16 src, dst;
	u32 seq, ack;
	u8 off, flags;
	u16 window, csum, urgent;
} packed;

struct vxlan {
	u32 flags; // 0x08000000
	u32 vni;   // << 8
} packed;

struct icmp {
	u8 type, code;
	u16 csum;
	u32 rest;
} packed;

struct rule_name {
	char text[512];
};

// fold makes the 16-bit checksum of a sum.
inline_ u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}
