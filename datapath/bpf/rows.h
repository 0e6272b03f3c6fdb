// SPDX-License-Identifier: Apache-2.0
// Rows of the tables, as everybody asks for them.
#pragma once
#include "parse.h"

inline_ struct settings *the_control(void)
{
	u32 zero = 0;
	return bpf_map_lookup_elem(&control, &zero);
}

inline_ struct endpoint *endpoint_of(u32 vni, const union addr *a)
{
	struct addr_key k = {.vni = vni};
	k.addr = *a;
	return bpf_map_lookup_elem(&endpoints, &k);
}

// prefix_key is the whole address in a longest-match table, under a number: a
// network or a set.
inline_ void prefix_key(struct route_key *k, u32 number, const union addr *a)
{
	__builtin_memset(k, 0, sizeof(*k));
	k->bits = 192;
	k->vni = number;
	if (mapped(a)) {
		k->family = bpf_htonl(4);
		__builtin_memcpy(k->addr, &a->w[3], 4);
	} else {
		k->family = bpf_htonl(6);
		__builtin_memcpy(k->addr, a->w, 16);
	}
}

// route_to is what the network has for the address: ROUTE_SUBNET or ROUTE_GATEWAY;
// 0: it is in none of its prefixes.
inline_ u32 route_to(u32 vni, const union addr *a)
{
	struct route_key k;
	prefix_key(&k, vni, a);
	u32 *route = bpf_map_lookup_elem(&routes, &k);
	return route ? *route : 0;
}

// session_of finds the row of a session, wherever it is.
inline_ struct session *session_of(const struct session_key *k)
{
	struct session *s = bpf_map_lookup_elem(&sessions, k);
	return s ? s : bpf_map_lookup_elem(&crowd, k);
}

// alias_of finds the row of an alias, wherever it is.
inline_ struct alias *alias_of(const struct session_key *k)
{
	struct alias *a = bpf_map_lookup_elem(&aliases, k);
	return a ? a : bpf_map_lookup_elem(&throng, k);
}
