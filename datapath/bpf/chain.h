// SPDX-License-Identifier: Apache-2.0
// Network functions in front of linked addresses. What goes to such an address
// goes to one instance, chosen by a hash that is the same for both directions;
// what comes from such an address comes from an instance, which speaks for it.
// A session remembers the instance, at either end, for as long as it is healthy.
#pragma once
#include "conntrack.h"

#define CHAIN_SLOTS 256

struct chain_key {
	u32 vni;
	u32 number;
};

struct chain {
	u32 slots[CHAIN_SLOTS]; // id of an instance, 0: none
};

struct function_key { // one instance, asked for in four ways
	u32 vni;
	u32 chain;
	u32 id;	     // the instance with that id, or
	u32 ifindex; // the one on this interface, or
	u32 node;    // the one with mac on this node, or
	u8 mac[6];   // the one with mac
	u16 pad;
};

TABLE(chains, HASH, struct chain_key, struct chain, 16384, BPF_F_NO_PREALLOC);
TABLE(functions, HASH, struct function_key, struct hop, 262144, BPF_F_NO_PREALLOC);

// chain_hash is the same for both directions and in every network of a link.
inline_ u32 chain_hash(const struct session_key *k)
{
	return hash_of(&k->a, &k->b, (u64)k->proto << 32 | (u32)k->aport << 16 | k->bport) >> 40;
}

// function_at is the instance that is where the hop says.
inline_ struct hop *function_at(u32 vni, u32 chain, u32 ifindex, u32 node, const u8 *mac)
{
	struct function_key k = {.vni = vni, .chain = chain, .ifindex = ifindex, .node = node};

	if (!ifindex)
		__builtin_memcpy(k.mac, mac, 6);
	return bpf_map_lookup_elem(&functions, &k);
}

// sender is the instance that p comes from: by its interface, or from another
// node by the source MAC.
inline_ struct hop *sender(const struct packet *p, u32 chain)
{
	return function_at(p->vni, chain, p->ifindex, p->node, p->eth_src);
}

inline_ struct hop *chosen_function(const struct session_key *key, u32 chain)
{
	struct chain_key ck = {.vni = key->vni, .number = chain};
	struct function_key k = {.vni = key->vni, .chain = chain};
	struct chain *c = bpf_map_lookup_elem(&chains, &ck);

	if (!c)
		return 0;
	k.id = c->slots[chain_hash(key) % CHAIN_SLOTS];
	return k.id ? bpf_map_lookup_elem(&functions, &k) : 0;
}

// by_way_of finds the instance at that end of t: the one that p comes from, the
// one that the session has, the one that another node chose, or one by the hash.
// 0, or the reason to drop.
step int by_way_of(struct packet *p, struct session *t, u32 end, u32 chain)
{
	u32 vni = p->key.vni;
	struct hop *h = 0, *had;

	end &= 1;
	had = &t->hop[end];
	if (p->side == end) {
		h = sender(p, chain);
	} else {
		if (had->how & HOW_FUNCTION)
			h = function_at(vni, chain, had->ifindex, had->node, had->mac);
		if (!h && p->node)
			h = function_at(vni, chain, 0, 0, p->eth_dst);
		if (!h)
			h = chosen_function(&p->key, chain);
	}
	if (!h)
		return R_CHAIN_DOWN;
	*had = *h;
	return 0;
}

// bridged: the frame keeps the MAC of the workload that sent it, on its way
// through a transparent function that is on this interface.
inline_ int bridged(const struct packet *p)
{
	struct endpoint *e = endpoint_of(p->vni, &p->src);
	struct hop *h = e && e->chain ? sender(p, e->chain) : 0;
	return h && h->how & HOW_TRANSPARENT;
}
