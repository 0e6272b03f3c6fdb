// SPDX-License-Identifier: Apache-2.0
// Services: which backend a new session to a Service address goes to. Only the
// slow path asks; a session keeps its backend.
//
// A choice table is written under a number that nobody knows yet, then the one
// row of the Service is switched to it: who reads the row sees a whole table.
#pragma once
#include "events.h"

struct service_key {
	union addr addr;
	u32 vni;
	u16 port; // network order
	u8 proto; // both 0: of the address: what takes everything, or SERVICE_PORTS
	u8 pad;
};

#define SERVICE_PORTS 1	   // the address has ports, other rows say which
#define SERVICE_FLOATING 2 // the backends' nodes exchange the destination
#define SERVICE_MESHED 4   // who is in the mesh reaches it by a proxy

struct choice {
	u32 table; // in slots
	u32 size;  // slots in use: prime; 0: no table
	u32 only;  // 1 + index of the only backend, when there is no table; 0: none
};

struct service {
	struct service_key self; // a row that was replaced while it is read shows here
	u32 id;
	u32 flags;
	u32 affinity; // s, 0: none
	struct choice all;
	struct choice here; // of SERVICE_FLOATING: the backends on this node
};

#define SLOTS 512

struct slots_key {
	u32 table;
	u32 row; // slot / SLOTS
};

struct slots_row {
	u16 backend[SLOTS]; // index
};

struct backend_key {
	u32 service; // id
	u32 index;
};

#define BACKEND_LEAVING 1 // gets no new session

struct backend {
	struct backend_key self;
	union addr addr;
	u32 vni;
	u16 port; // network order, 0: the port stays
	u16 flags;
};

struct client {
	union addr addr;
	u32 service;
	u32 pad;
};

struct favourite { // backend of a client
	u64 last;      // new session, ns since boot
	u32 index;
	u32 pad;
};

TABLE(services, HASH, struct service_key, struct service, 262144, BPF_F_NO_PREALLOC);
TABLE(slots, HASH, struct slots_key, struct slots_row, 262144, BPF_F_NO_PREALLOC);
TABLE(backends, HASH, struct backend_key, struct backend, 1048576, BPF_F_NO_PREALLOC);
TABLE(favourites, LRU_HASH, struct client, struct favourite, 65536, 0);

// at_address finds what is known of the address as a whole: a Service that
// takes everything, or that it is a Service address with ports.
inline_ struct service *at_address(u32 vni, const union addr *a)
{
	struct service_key k = {.vni = vni};
	k.addr = *a;
	return bpf_map_lookup_elem(&services, &k);
}

// read_service copies a row, whole; 0 when there is none.
inline_ int read_service(const struct service_key *k, struct service *into)
{
	for (int i = 0; i < 3; i++) {
		struct service *v = bpf_map_lookup_elem(&services, k);
		if (!v)
			return 0;
		__builtin_memcpy(into, v, sizeof(*into));
		barrier();
		if (same(&v->self.addr, &k->addr) && v->self.vni == k->vni && v->self.port == k->port &&
		    v->self.proto == k->proto)
			return 1;
	}
	return 0;
}

// service_of copies the Service that a packet is for; 0 when the address is
// nobody's. With SERVICE_PORTS in its flags it is only the address.
inline_ int service_of(const struct packet *p, struct service *into)
{
	struct service_key k = {.vni = p->vni, .port = p->dport, .proto = p->proto};

	k.addr = p->dst;
	if ((p->proto == PROTO_TCP || p->proto == PROTO_UDP || p->proto == PROTO_SCTP) && read_service(&k, into))
		return 1;
	k.port = 0;
	k.proto = 0;
	return read_service(&k, into);
}

inline_ struct backend *backend_of(u32 service, u32 index)
{
	struct backend_key k = {.service = service, .index = index};
	return bpf_map_lookup_elem(&backends, &k);
}

// is_still: the row is what it was when it was found. Asked after the last use:
// the memory of a row that is replaced may hold another one at once.
inline_ int is_still(const struct backend *b, u32 service, u32 index)
{
	barrier();
	return b->self.service == service && b->self.index == index;
}

// choice_hash is the same for every packet of one session, with ports or, for
// all sessions of one client, without; and as good as random for others.
inline_ u64 choice_hash(const struct packet *p, u32 ports)
{
	u64 h = hash_of(&p->src, &p->dst, (u64)p->vni << 40 | (u64)p->proto << 32 | (ports ? (u32)p->sport << 16 : 0) | p->dport);

	return h ^ h >> 32;
}

// slot_of is 1 + the index of the backend in the slot of a hash; 0: none.
inline_ u32 slot_of(const struct choice *c, u64 hash)
{
	struct slots_key k = {.table = c->table};
	struct slots_row *row;
	u32 slot;

	if (!c->size)
		return c->only;
	slot = (hash >> 16) % c->size;
	k.row = slot / SLOTS;
	row = bpf_map_lookup_elem(&slots, &k);
	return row ? 1 + row->backend[slot % SLOTS] : 0;
}

// favourite is the backend that the client had last: 1 + index; 0: none that
// still takes sessions.
inline_ u32 favourite_of(const struct service *v, const struct client *who, u64 now)
{
	struct favourite *f = bpf_map_lookup_elem(&favourites, who);
	struct backend *b;

	if (!f || f->last + v->affinity * SECOND < now)
		return 0;
	b = backend_of(v->id, f->index);
	return b && !(b->flags & BACKEND_LEAVING) ? 1 + f->index : 0;
}

// choose says to which backend a new session of p goes: 1 + index, 0: there is
// none. c is &v->all or &v->here. With affinity the choice depends on the client
// alone, so it most often stays even when the client is forgotten.
step u32 choose(const struct packet *p, const struct service *v, const struct choice *c, u64 now)
{
	struct client who = {.service = v->id};
	u32 chosen;

	if (!v->affinity)
		return slot_of(c, choice_hash(p, 1));
	who.addr = p->src;
	chosen = favourite_of(v, &who, now);
	if (!chosen)
		chosen = slot_of(c, choice_hash(p, 0));
	if (chosen) {
		struct favourite f = {.last = now, .index = chosen - 1};
		bpf_map_update_elem(&favourites, &who, &f, BPF_ANY);
	}
	return chosen;
}
