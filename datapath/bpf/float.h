// SPDX-License-Identifier: Apache-2.0
// Step 4b, FloatingIPs: addresses of one network, or of the outside, that stand
// for workloads of others. The caller's node chooses a backend and sends the
// packet there as it is; the backend's node chooses among its own and exchanges
// the destination (guise[1]). The source address stays, even when somebody in
// the backend's network has it too: what comes back finds the alias first. Only
// a caller that has the backend's own address, or, where a proxy would take it for
// the one who has it there, somebody's, comes as the FloatingIP. A session stays with its backend for as long as that is there, wherever the
// FloatingIP leads by now.
#pragma once
#include "guise.h"
#include "mesh.h"
#include "service.h"

// welcome notes that the caller is seen in the backend's network, where it may
// look like a neighbour that nobody is: the router answers for it.
step int welcome(const struct guise *g, u64 now)
{
	struct addr_key k = {.vni = g->vni};
	k.addr = g->addr[0];
	return bpf_map_update_elem(&visitors, &k, &now, BPF_ANY);
}

// float_to gives a new session, as p tells it, the guise of its backend: 0, or
// the reason to drop.
inline_ int float_to(struct packet *p, struct session *t, const struct service *v, u64 now)
{
	struct guise *g = &t->guise[1];
	u32 chosen = choose(p, v, p->node ? &v->here : &v->all, now);
	struct backend *b = chosen ? backend_of(v->id, chosen - 1) : 0;
	struct endpoint *e;

	if (!b)
		return R_NO_BACKEND;
	g->kind = G_FLOATING;
	g->flags = 0;
	g->vni = b->vni;
	// Who has the target's own address would be taken for the target itself.
	g->addr[0] = same(&p->src, &b->addr) ? p->dst : p->src;
	g->addr[1] = b->addr;
	g->port[0] = p->sport;
	g->port[1] = b->port ? b->port : p->dport;
	g->service = 0; // stays when the FloatingIP moves
	if (!is_still(b, v->id, chosen - 1))
		return R_FAILED;
	t->a_first = p->src_is_a;
	e = endpoint_of(g->vni, &g->addr[1]);
	if (!e)
		return R_NO_BACKEND;
	if (!e->ifindex) {
		g->flags = G_AWAY;
		return 0;
	}
	if (is_meshed(e->ifindex) && endpoint_of(g->vni, &g->addr[0])) // else the proxy would take it for that one
		g->addr[0] = p->dst;
	welcome(g, now);
	return claim(p, g, now);
}
