// SPDX-License-Identifier: Apache-2.0
// Two views of one session. A session is told (keyed, judged, recorded, sent
// from node to node) as its originator's node has it. An end that sees it in
// another way has a guise: network, addresses and ports as they are there.
//
//   guise[0]  how the originator sees it: it asked for a Service (G_SERVICE)
//   guise[1]  how the responder sees it: it is in a linked network (G_LINK),
//             behind a FloatingIP (G_FLOATING), or outside (G_OUTSIDE)
//
// Both may be there: a Service whose backend is reached by a Link. A packet
// from an end with a guise comes in that guise, finds no session of its key and
// so its row in aliases, which names the session and the end. It is rewritten in
// one go from the guise of the end that it is from to that of the end that it is
// for (dress). A plain session never comes here: S_ODD says which do.
//
// To open a session with a guise: serve (serve.h). The packet p is as it
// came; t, the session to be, is zeroed except for a_first:
//   1. fill t->guise[end]: kind, vni, addr[0..1], port[0..1] (index 0 is always
//      the originator, ports in network order);
//   2. when what is told is not as p came (only guise[0] makes that so: the
//      backend is told, the Service's address is the guise): retell(p, vni, src,
//      sport, dst, dport), and t->a_first = p->src_is_a after it. tell_apart(p, t,
//      now) sees to it that no other session is told like that;
//   3. where other sessions could look the same to the responder (many sources
//      behind one address): claim(p, &t->guise[1], now) finds a source port that is
//      free, or says R_NO_PORT.
// slow() then grounds both ends (ground.h: endpoints, policy sets, hops), judges,
// writes the row and its aliases, and sends the packet on (odd.h). For packets of
// a session that exists ground() is asked again after every change of a table:
// G_LINK must be as the tables say now, others stay while the endpoint at the
// place where the guise says that the end is still exists. G_AWAY in
// guise[1].flags: the end is at addr[1] of vni, but another node translates; only
// ground() looks at it, the session is a plain one otherwise.
//
// Calls are 8 deep at most and 512 bytes of stack: what needs memory takes it
// from struct work (parse.h). Large pieces are `alone` functions, verified once.
//
// ICMP errors are rewritten with what they quote (quote.h). SCTP has a CRC over
// ports and payload: its addresses change for free, its ports by crc.h.
#pragma once
#include "conntrack.h"
#include "crc.h"

#define PROTO_UDPLITE 136
#define SUM_IPV6 (1ULL << 7) // BPF_F_IPV6, where the kernel knows it
#define CLAIM_TRIES 16
#define CALLER_FIRST 32768 // ports of a caller, where its own looks the same as another's
#define CALLER_LAST 60999

// some_port is one of a caller, in network order.
inline_ u16 some_port(void)
{
	return bpf_htons(CALLER_FIRST + bpf_get_prandom_u32() % (CALLER_LAST - CALLER_FIRST + 1));
}

inline_ struct work *work_of(struct packet *p) { return (struct work *)p; } // its first member

// wears: packets from and to that end are not as the session is told.
inline_ int wears(const struct session *s, u32 end)
{
	const struct guise *g = &s->guise[end & 1];
	return g->kind && !(g->flags & G_AWAY);
}

// guise_as_key is the key that packets have in that guise; it lies in scratch
// memory, for a moment.
inline_ struct session_key *guise_as_key(struct packet *p, const struct guise *g)
{
	struct session_key *k = &work_of(p)->seen;
	order_key(k, g->vni, &g->addr[0], g->port[0], &g->addr[1], g->port[1], p->key.proto);
	return k;
}

inline_ int same_key(const struct session_key *a, const struct session_key *b)
{
	return same(&a->a, &b->a) && same(&a->b, &b->b) && a->vni == b->vni && a->aport == b->aport &&
	       a->bport == b->bport && a->proto == b->proto;
}

inline_ int same_guise(const struct guise *a, const struct guise *b)
{
	return a->kind == b->kind && a->flags == b->flags && a->vni == b->vni && same(&a->addr[0], &b->addr[0]) &&
	       same(&a->addr[1], &b->addr[1]) && a->port[0] == b->port[0] && a->port[1] == b->port[1];
}

// matches: the guise of that end is what the key of p says.
inline_ int matches(struct packet *p, const struct session *s, u32 end)
{
	return wears(s, end) && same_key(guise_as_key(p, &s->guise[end & 1]), &p->key);
}

// retell sets what p is about; the packet itself stays as it is.
inline_ void retell(struct packet *p, u32 vni, const union addr *src, u16 sport, const union addr *dst, u16 dport)
{
	p->vni = vni;
	p->src = *src;
	p->dst = *dst;
	p->sport = sport;
	p->dport = dport;
	p->unknown = 0;
	set_key(p, src, sport, dst, dport, p->key.proto);
}

// as_told makes p, a packet in a guise, what its session is told as. side is the
// direction of the packet.
inline_ void as_told(struct packet *p, const struct session *s, const struct session_key *k, u32 side)
{
	u32 a = s->a_first ? !side : side;

	p->key = *k;
	p->vni = k->vni;
	p->src_is_a = a;
	p->src = a ? k->a : k->b;
	p->dst = a ? k->b : k->a;
	p->sport = a ? k->aport : k->bport;
	p->dport = a ? k->bport : k->aport;
}

// by_alias finds the session that p, of which there is none, belongs to, and the
// end that sees it so, which must be the one that p is from.
inline_ struct session *by_alias(struct packet *p, struct alias **row)
{
	struct alias *a = alias_of(&p->key);
	struct session *s;

	if (!a)
		return 0;
	p->unknown = 0;
	s = session_of(&a->session);
	if (!s || !matches(p, s, a->end) || !same(&s->guise[a->end & 1].addr[a->end & 1], &p->src))
		return 0;
	*row = a;
	return s;
}

// find looks for the session of a packet, by its key or as one end sees it, in
// which case p becomes what is told. 0 when there is none, or it is over.
inline_ struct session *find(struct packet *p, u32 *side, u64 now)
{
	struct session *s, *o;
	struct alias *a = 0;

	if (p->unknown) // the fast path has looked
		return 0;
	s = session_of(&p->key);
	if (s) {
		*side = side_of(p, s) & 1;
		if (s->expires < now || wears(s, *side)) // that end sees it in another way: this is not of it
			s = 0;
	}
	if (!s || !is_from(p, &s->hop[*side])) { // it may be of another session, which looks the same there
		o = by_alias(p, &a);
		if (o && (!s || (o->expires >= now && is_from(p, &o->hop[a->end & 1])))) {
			s = o;
			*side = a->end & 1;
		} else {
			a = 0;
		}
	}
	if (!s || s->expires < now || is_opening(p, s, *side))
		return 0;
	if (a)
		as_told(p, s, &a->session, *side);
	return s;
}

// put_alias lets packets in the guise of that end find the session s of p. It is
// where the session is: who opens more than a share pushes out aliases of others
// like it only. Without its alias a session could lose its replies to another one.
inline_ int put_alias(struct packet *p, const struct session *s, u32 end)
{
	struct alias *a = &work_of(p)->alias;

	a->session = p->key;
	a->end = end & 1;
	struct session_key *k = guise_as_key(p, &s->guise[end & 1]);
	if (bpf_map_lookup_elem(&sessions, &a->session)) {
		bpf_map_delete_elem(&throng, k);
		return bpf_map_update_elem(&aliases, k, a, BPF_ANY);
	}
	bpf_map_delete_elem(&aliases, k);
	return bpf_map_update_elem(&throng, k, a, BPF_ANY);
}

inline_ void put_aliases(struct packet *p, const struct session *s)
{
	if (wears(s, 0))
		put_alias(p, s, 0);
	if (wears(s, 1))
		put_alias(p, s, 1);
}

// is_claimed: packets in the guise of the responder, of the session in scratch
// memory, belong to another living session already.
alone int is_claimed(u64 now)
{
	struct work *w = the_work();
	struct session_key *k;
	struct session *s;
	struct alias *a;

	if (!w)
		return 1;
	k = guise_as_key(&w->packet, &w->event.session.guise[1]);
	s = session_of(k);
	if (s && s->expires >= now)
		return 1;
	a = alias_of(k);
	if (!a)
		return 0;
	s = session_of(&a->session);
	return s && s->expires >= now && !same_key(&a->session, &w->packet.key);
}

// chooses_port: the port of the originator, or the id of its echo, is one of many:
// another one may be told to the other end.
inline_ int chooses_port(const struct packet *p)
{
	return p->key.proto == PROTO_TCP || p->key.proto == PROTO_UDP || is_ping(p);
}

// claim finds a source port under which no other session looks the same to the
// responder of the session in scratch memory: first the one that is there, then
// some of a caller. 0, or the reason to drop.
step int claim(const struct packet *p, struct guise *g, u64 now)
{
	for (int i = 0; i < CLAIM_TRIES; i++) {
		if (!is_claimed(now))
			return 0;
		if (!chooses_port(p))
			return R_NO_PORT;
		g->port[0] = some_port();
	}
	return R_NO_PORT;
}

// seen_by says how a packet of s looks to that end. p->key is what s is told as,
// side the direction of the packet.
inline_ void seen_by(struct tuple *t, const struct packet *p, const struct session *s, u32 end, u32 side)
{
	const struct guise *g = &s->guise[end & 1];

	side &= 1;
	if (wears(s, end)) {
		t->src = g->addr[side];
		t->dst = g->addr[1 - side];
		t->sport = g->port[side];
		t->dport = g->port[1 - side];
		t->vni = g->vni;
		return;
	}
	u32 a = s->a_first ? !side : side;
	t->src = a ? p->key.a : p->key.b;
	t->dst = a ? p->key.b : p->key.a;
	t->sport = a ? p->key.aport : p->key.bport;
	t->dport = a ? p->key.bport : p->key.aport;
	t->vni = p->key.vni;
}

// l4_sum corrects a transport checksum in the packet.
inline_ int l4_sum(struct __sk_buff *skb, u32 at, u64 from, u64 to, u64 flags, int v6)
{
	int r = -22; // EINVAL: an older kernel
	if (v6)
		r = bpf_l4_csum_replace(skb, at, from, to, flags | SUM_IPV6);
	return r == -22 ? bpf_l4_csum_replace(skb, at, from, to, flags) : r;
}

// put_addresses writes source and destination into the IP header at `at`, where
// old is now, with its checksum, and says in diff what that does to a pseudo
// header.
inline_ int put_addresses(struct __sk_buff *skb, u32 at, int v6, const union addr *old, const union addr *new, s64 *diff)
{
	*diff = 0;
	if (same(&old[0], &new[0]) && same(&old[1], &new[1]))
		return 0;
	if (v6) {
		*diff = (u32)bpf_csum_diff((u32 *)old, 32, (u32 *)new, 32, 0);
		return bpf_skb_store_bytes(skb, at + 8, new, 32, 0);
	}
	u32 was[2] = {old[0].w[3], old[1].w[3]}, is[2] = {new[0].w[3], new[1].w[3]};
	*diff = (u32)bpf_csum_diff(was, 8, is, 8, 0);
	if (bpf_l3_csum_replace(skb, at + 10, 0, *diff, 0))
		return -1;
	return bpf_skb_store_bytes(skb, at + 12, is, 8, 0);
}

// sum_offset is where the transport header has a checksum over the pseudo
// header, 0: it has none.
inline_ u32 sum_offset(u8 proto)
{
	switch (proto) {
	case PROTO_TCP:
		return 16;
	case PROTO_UDP:
	case PROTO_UDPLITE:
		return 6;
	case PROTO_ICMPV6:
		return 2;
	}
	return 0;
}

// put_ports writes both ports, or the id of an echo.
inline_ int put_ports(struct __sk_buff *skb, const struct packet *p, const struct tuple *from, const struct tuple *to)
{
	u64 zero = p->proto == PROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	if (from->sport == to->sport && from->dport == to->dport)
		return 0;
	if (p->proto == PROTO_ICMP || p->proto == PROTO_ICMPV6) {
		u16 old = p->kind == K_REPLY ? from->dport : from->sport;
		u16 id = p->kind == K_REPLY ? to->dport : to->sport;
		return bpf_l4_csum_replace(skb, p->l4 + 2, old, id, 2) || bpf_skb_store_bytes(skb, p->l4 + 4, &id, 2, 0);
	}
	u32 old = from->sport | (u32)from->dport << 16, new = to->sport | (u32)to->dport << 16;
	if (p->proto == PROTO_SCTP)
		return put_sctp_ports(skb, p, old, new);
	if (p->proto != PROTO_TCP && p->proto != PROTO_UDP)
		return -1;
	return bpf_l4_csum_replace(skb, p->l4 + sum_offset(p->proto), old, new, 4 | zero) ||
	       bpf_skb_store_bytes(skb, p->l4, &new, 4, 0);
}

// rewrite makes a packet that looks like from look like to.
step int rewrite(struct __sk_buff *skb, struct packet *p, const struct tuple *from, const struct tuple *to)
{
	u64 flags = BPF_F_PSEUDO_HDR | (p->proto == PROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	u32 at = sum_offset(p->proto);
	s64 diff;

	if (put_addresses(skb, ETH_LEN, p->v6, &from->src, &to->src, &diff))
		return -1;
	if (p->later)
		return 0;
	if (diff && at && l4_sum(skb, p->l4 + at, 0, diff, flags, p->v6))
		return -1;
	return put_ports(skb, p, from, to);
}
