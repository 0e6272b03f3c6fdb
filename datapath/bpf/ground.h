// SPDX-License-Identifier: Apache-2.0
// Step 4, the ground that a session stands on: where its ends are, who they are
// and which policy sets they have, by the tables as they are now.
#pragma once
#include "chain.h"
#include "mesh.h"
#include "outside.h"
#include "policy.h"

#define SHIFTED 255 // a row was replaced while it was read

// link_guise: the end is in a linked network, and here. Its guise is how things
// look there; the originator must have an address there as well.
inline_ int link_guise(const struct packet *p, struct session *t, const struct endpoint *e, const union addr *orig)
{
	struct guise_key k = {.vni = e->home.vni};
	struct guise *g = &t->guise[1];

	k.home.addr = *orig;
	k.home.vni = p->key.vni;
	union addr *seen = bpf_map_lookup_elem(&guises, &k);
	if (!seen)
		return R_NO_ROUTE;
	g->kind = G_LINK;
	g->vni = e->home.vni;
	g->addr[0] = *seen;
	g->addr[1] = e->home.addr;
	g->port[0] = t->a_first ? p->key.aport : p->key.bport;
	g->port[1] = t->a_first ? p->key.bport : p->key.aport;
	return 0;
}

// one_end takes over what the endpoint row says of an end.
inline_ int one_end(struct packet *p, struct session *t, u32 end, const struct endpoint *e, u32 vni, const union addr *addr)
{
	int r = 0;

	t->identity[end] = e->identity;
	t->set[end] = 0;
	meshed_end(t, end, e);
	if (unlikely(e->chain)) { // judged where the end itself is
		r = by_way_of(p, t, end, e->chain);
	} else {
		set_hop(&t->hop[end], e);
	}
	if (unlikely(e->how & HOW_PLATFORM)) {
		t->judged |= end ? J_SERVED_1 : J_SERVED_0;
		t->set[end] = end ? e->ingress : e->egress;
	} else if (e->ifindex && !e->chain) {
		t->judged |= end ? J_INGRESS : J_EGRESS;
		t->set[end] = end ? e->ingress : e->egress;
	}
	barrier();
	return e->self.vni == vni && same(&e->self.addr, addr) ? r : SHIFTED;
}

// settle does it once; src, when it is not 0, is the row of end 0.
inline_ int settle(struct packet *p, struct session *t, const struct endpoint *src)
{
	const union addr *orig = t->a_first ? &p->key.a : &p->key.b;
	const union addr *resp = t->a_first ? &p->key.b : &p->key.a;
	const struct guise *g = &t->guise[1];
	u32 vni = p->key.vni;
	int r;

	t->judged = 0;
	if (!src)
		src = endpoint_of(vni, orig);
	r = src ? one_end(p, t, 0, src, vni, orig) : comes_in(p, t);
	if (r)
		return r;
	if (g->kind) { // is where the guise says
		vni = g->vni;
		resp = &g->addr[1];
	}
	const struct endpoint *e = endpoint_of(vni, resp);
	if (!e) {
		t->judged &= ~J_MESH;
		return beyond(p, t);
	}
	r = one_end(p, t, 1, e, vni, resp);
	if (t->guise[1].kind == G_FLOATING) {
		t->guise[1].flags = e->ifindex ? 0 : G_AWAY;
		t->judged &= ~J_MESH; // who comes that way comes as from outside
	}
	if (!r && e->home.vni && e->ifindex && !e->chain && !g->kind)
		r = link_guise(p, t, e, orig);
	if (t->guise[1].kind == G_LINK) // a foot: the node does not serve that network
		t->judged &= ~J_SERVED_0;
	return r;
}

// ground fills both ends of t, for p as it is told: 0, or the reason to drop.
// src is the row of end 0, when it is known. t->hop says which functions the
// session had, p->side where p goes.
alone int ground(const struct endpoint *src)
{
	struct work *w = the_work();
	if (!w)
		return R_FAILED;
	struct packet *p = &w->packet;
	struct session *t = &w->event.session;
	int r;

	if (t->guise[1].kind == G_LINK) // as the tables say now
		t->guise[1].kind = 0;
	r = settle(p, t, src);
	if (r == SHIFTED)
		r = settle(p, t, 0);
	return r == SHIFTED ? R_FAILED : r;
}
