// SPDX-License-Identifier: Apache-2.0
// Step 4b, Services: a new session to a Service address is told as one to the
// backend that is chosen for it here, on the caller's node; the caller's guise
// is the Service address. See service.h for the choice and guise.h for the rest.
#pragma once
#include "float.h"
#include "guise.h"
#include "mesh.h"
#include "refuse.h"
#include "service.h"

#define REFUSE -4 // the packet is as its sender sent it; refuse() is left to do
#define REJECT -5 // the same, and it is told already; reject() is left to do

// told_free: nothing else is told as p is now. A session that asked for the same
// Service from the same port, or one that is over, makes room.
inline_ int told_free(struct packet *p, const struct session *t, u64 now)
{
	struct session *s = session_of(&p->key);

	if (p->sport == p->dport && same(&p->src, &p->dst))
		return 0; // the two directions would look the same
	if (!s || s->expires < now || s->flags & S_CLOSED)
		return 1;
	return same_guise(&s->guise[0], &t->guise[0]);
}

// tell_apart finds a source port under which no other session is told.
inline_ int tell_apart(struct packet *p, struct session *t, u64 now)
{
	for (int i = 0; i < CLAIM_TRIES; i++) {
		if (told_free(p, t, now))
			return 0;
		if (p->proto != PROTO_TCP && p->proto != PROTO_UDP)
			return R_NO_PORT;
		retell(p, p->vni, &p->src, some_port(), &p->dst, p->dport);
	}
	return R_NO_PORT;
}

// hairpin: the backend is the caller itself, and sees the Service address as
// its peer; else it would answer itself directly.
inline_ void hairpin(const struct packet *p, struct session *t)
{
	struct guise *g = &t->guise[1];

	g->kind = G_SERVICE;
	g->vni = p->vni;
	g->addr[0] = t->guise[0].addr[1];
	g->addr[1] = p->dst;
	g->port[0] = p->sport;
	g->port[1] = p->dport;
}

// serve gives a new session (the packet at work, the session in scratch memory),
// whose destination is no endpoint, a backend: 0, or the reason to drop.
// R_NO_ROUTE: it is not for a Service.
alone int serve(u64 now)
{
	struct work *w = the_work();
	struct packet *p = &w->packet;
	struct session *t = &w->event.session;
	struct service v;
	struct backend *b;
	u32 chosen;
	int r;

	if (!w || !service_of(p, &v) || v.flags & SERVICE_PORTS)
		return R_NO_ROUTE;
	if (v.flags & SERVICE_FLOATING)
		return float_to(p, t, &v, now);
	if (p->node) // the caller's node chooses
		return R_NO_ROUTE;
	if (unlikely(p->meshed) && p->proto == PROTO_TCP)
		p->fronted = asks_frontend(p);
	chosen = choose(p, &v, &v.all, now);
	b = chosen ? backend_of(v.id, chosen - 1) : 0;
	if (!b)
		return R_NO_BACKEND;
	struct guise *g = &t->guise[0];
	g->kind = G_SERVICE;
	g->vni = p->vni;
	g->addr[0] = p->src;
	g->addr[1] = p->dst;
	g->port[0] = p->sport;
	g->port[1] = p->dport;
	g->service = v.id;
	g->backend = chosen - 1;
	union addr *to = &w->pair[0];
	*to = b->addr;
	u16 port = b->port ? b->port : p->dport;
	if (!is_still(b, v.id, chosen - 1))
		return R_FAILED;
	retell(p, p->vni, &p->src, p->sport, to, port);
	r = tell_apart(p, t, now);
	if (r)
		return r;
	if (same(&p->src, &p->dst))
		hairpin(p, t);
	t->a_first = p->src_is_a;
	return 0;
}

// is_gone: that end was chosen as a backend of a Service, and is no longer one.
inline_ int is_gone(const struct guise *g, const union addr *at)
{
	struct backend *b;

	if (!g->service)
		return 0;
	b = backend_of(g->service, g->backend);
	return !b || (!same(&b->addr, at) && is_still(b, g->service, g->backend));
}

inline_ int lost_backend(const struct session *s, const struct session_key *k)
{
	return is_gone(&s->guise[0], s->a_first ? &k->b : &k->a) || is_gone(&s->guise[1], &s->guise[1].addr[1]);
}

// depart ends a session, as which p is told, whose backend is gone. What the
// caller of a TCP session sends is refused; of others it opens a session anew,
// to another backend: p is then as the caller sent it, and the result 0.
step int depart(struct __sk_buff *skb, struct packet *p, struct session *s, u32 side)
{
	struct tuple *from = &work_of(p)->from;

	if (!(s->flags & S_ENDED) && !s->reason)
		tell(EVENT_ENDED, R_NO_BACKEND, 0, &p->key, s);
	s->flags |= S_CLOSED | S_ENDED;
	s->expires = 1; // the sweep takes it away
	if (side)
		return drop(skb, p, R_NO_BACKEND);
	seen_by(from, p, s, 0, 0);
	retell(p, from->vni, &from->src, from->sport, &from->dst, from->dport);
	if (p->proto == PROTO_TCP && (p->tcp & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return REFUSE;
	return 0;
}
