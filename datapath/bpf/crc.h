// SPDX-License-Identifier: Apache-2.0
// SCTP has a CRC32c over ports and payload (RFC 9260, appendix A). A CRC is
// linear: what other ports do to it depends on their bits and on how many bytes
// follow, not on what these are.
#pragma once
#include "parse.h"

#define CASTAGNOLI 0x82f63b78 // its polynomial, reflected
#define SCTP_CRC 8	      // offset of the checksum

// x to the power of 8 << n, modulo the polynomial, reflected.
static const u32 crc_powers[16] = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c,
	0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
	0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a,
	0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
};

// crc_times multiplies two polynomials.
inline_ u32 crc_times(u32 a, u32 b)
{
	u32 product = 0;

	for (int i = 31; i >= 0; i--) {
		product ^= b & -(a >> i & 1);
		b = b >> 1 ^ (CASTAGNOLI & -(b & 1));
	}
	return product;
}

struct crc {
	u32 bits, bytes;
};

// crc_step takes one bit of the number of bytes into account.
static long crc_step(u32 n, struct crc *c)
{
	u32 times = crc_times(crc_powers[n & 15], c->bits);
	c->bits = c->bytes >> (n & 15) & 1 ? times : c->bits;
	return 0;
}

// crc_after says what a register is after so many zero bytes.
alone u32 crc_after(u32 bits, u32 bytes)
{
	struct crc c = {.bits = bits, .bytes = bytes};
	bpf_loop(16, crc_step, &c, 0);
	return c.bits;
}

// sctp_length is that of the whole SCTP packet; 0 when this is a part of it.
inline_ u32 sctp_length(struct __sk_buff *skb, const struct packet *p)
{
	u16 len, frag;

	if (p->v6) {
		if (p->l4 != ETH_LEN + sizeof(struct ipv6) || bpf_skb_load_bytes(skb, ETH_LEN + 4, &len, 2))
			return 0;
		return bpf_ntohs(len);
	}
	if (bpf_skb_load_bytes(skb, ETH_LEN + 2, &len, 2) || bpf_skb_load_bytes(skb, ETH_LEN + 6, &frag, 2) ||
	    frag & bpf_htons(0x3fff))
		return 0;
	return bpf_ntohs(len) - (p->l4 - ETH_LEN);
}

// put_sctp_ports writes other ports, and the CRC. A CRC of 0 is left to the
// device that the packet leaves by.
inline_ int put_sctp_ports(struct __sk_buff *skb, const struct packet *p, u32 old, u32 new)
{
	u32 length = sctp_length(skb, p), crc;

	if (!length || bpf_skb_load_bytes(skb, p->l4 + SCTP_CRC, &crc, 4))
		return -1;
	if (crc) {
		crc ^= crc_after(old ^ new, length & 0xffff);
		if (bpf_skb_store_bytes(skb, p->l4 + SCTP_CRC, &crc, 4, 0))
			return -1;
	}
	return bpf_skb_store_bytes(skb, p->l4, &new, 4, 0);
}
