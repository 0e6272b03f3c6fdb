// SPDX-License-Identifier: Apache-2.0
// The outside: what is no endpoint, no Service and in no prefix of a network
// that has an exit. A session with it is told in its originator's view:
//
//   from a workload    (its network, workload -> outside address). The node of
//                      the exit masquerades: guise[1] is (OUTSIDE, address that
//                      it leaves as, port that was free -> outside address)
//   from outside       (OUTSIDE, outside address -> external address), for a
//                      FloatingIP of an external pool; its backend's guise is as
//                      with every FloatingIP
//
// The outside has no identity (0) and no policy set; its hop has HOW_OUTSIDE.
// leave.h sends what goes there, arrive.h takes what comes from there.
#pragma once
#include "guise.h"

#define DRAWS 32 // of a port for a session that leaves
#define OUTSIDE 0xffffff // snapshot.Outside

struct outlook { // one row
	union addr own[2]; // of this node, IPv4 and IPv6; zero: it has none
	u16 first, last;   // ports, in host order, for sessions under our own address
	u32 lent;	   // the agent switched accept_local of the loopback on
};

struct exit { // of a network
	union addr as[2]; // IPv4 and IPv6
	u32 node;	  // that translates; 0: this one
	u32 given;	  // leaves under these addresses or not at all; 0: the node's own
	u32 lot;	  // of the tenant: which ports of the node's own address it gets
	u32 pad;
};

struct masquerade { // of one endpoint: leaves as its own FloatingIP
	union addr as;
	u32 node;
	u32 pad;
};

#define FRONT_OWN 1	 // our own address: only sessions that we know are ours
#define FRONT_EXTERNAL 2 // an address that is ours alone

struct front { // an address of the underlay
	u32 kind;
	u32 node; // that holds it; 0: this one
};

#define HOST_SELF 1 // this node

struct host_port_key {
	u32 bits; // counted from vni
	u32 vni;
	u8 proto;
	u8 port[2]; // network order
	u8 pad;
};

TABLE(outlooks, ARRAY, u32, struct outlook, 1, 0);
TABLE(exits, HASH, u32, struct exit, 16384, BPF_F_NO_PREALLOC);
TABLE(masquerades, HASH, struct addr_key, struct masquerade, 65536, BPF_F_NO_PREALLOC);
TABLE(fronts, HASH, union addr, struct front, 65536, BPF_F_NO_PREALLOC);
TABLE(hosts, HASH, union addr, u32, 16384, BPF_F_NO_PREALLOC); // addresses of nodes -> HOST_
TABLE(host_ports, LPM_TRIE, struct host_port_key, u32, 65536, BPF_F_NO_PREALLOC);

inline_ struct outlook *the_outlook(void)
{
	u32 zero = 0;
	return bpf_map_lookup_elem(&outlooks, &zero);
}

inline_ struct front *front_of(const union addr *a) { return bpf_map_lookup_elem(&fronts, a); }

// stays_inside: never leaves, whatever the exits say: this host, loopback,
// link-local, multicast, reserved.
inline_ int stays_inside(const union addr *a)
{
	if (mapped(a)) {
		u32 v4 = bpf_ntohl(a->w[3]), net = v4 >> 24;
		return net == 0 || net == 127 || net >= 224 || v4 >> 16 == 0xa9fe;
	}
	u32 top = bpf_ntohl(a->w[0]) >> 24;
	return top == 0 || top == 0xff || is_link_local(a);
}

// opens: the network may reach that port of the nodes themselves.
inline_ int opens(u32 vni, u8 proto, u16 port)
{
	struct host_port_key k = {.bits = 56, .vni = vni, .proto = proto == PROTO_ICMPV6 ? PROTO_ICMP : proto};

	if (proto != PROTO_ICMP && proto != PROTO_ICMPV6)
		__builtin_memcpy(k.port, &port, 2);
	return bpf_map_lookup_elem(&host_ports, &k) != 0;
}

// way_out finds by which node, and as whom, an endpoint leaves: 0, or the reason
// to drop. as is zero when another node says it.
inline_ int way_out(u32 vni, const union addr *orig, union addr *as, u32 *node)
{
	u32 v6 = !mapped(orig);
	struct addr_key k = {.vni = vni};
	struct exit *e = bpf_map_lookup_elem(&exits, &vni);
	struct masquerade *m;
	struct outlook *o = the_outlook();

	if (!e || !o)
		return R_NO_EXIT;
	k.addr = *orig;
	m = bpf_map_lookup_elem(&masquerades, &k);
	if (m) {
		*node = m->node;
		*as = m->as;
		return 0;
	}
	*node = e->node;
	*as = v6 ? e->as[1] : e->as[0];
	if (e->node && !e->given)
		return 0;
	if (is_zero(as) && !e->given)
		*as = v6 ? o->own[1] : o->own[0];
	return is_zero(as) ? R_NO_EXIT : 0;
}

// beyond fills the responder of t, which is no endpoint, when it is outside: 0,
// or the reason to drop. R_NO_ROUTE: it is not.
step int beyond(struct packet *p, struct session *t)
{
	const union addr *orig = t->a_first ? &p->key.a : &p->key.b;
	const union addr *resp = t->a_first ? &p->key.b : &p->key.a;
	u16 oport = t->a_first ? p->key.aport : p->key.bport;
	u16 rport = t->a_first ? p->key.bport : p->key.aport;
	struct guise *g = &t->guise[1];
	u32 vni = p->key.vni, node = 0;
	union addr *as = &work_of(p)->pair[0];
	int r;

	if (vni == OUTSIDE || stays_inside(resp) || route_to(vni, resp) || at_address(vni, resp))
		return R_NO_ROUTE;
	if ((g->kind && g->kind != G_OUTSIDE) || endpoint_of(vni, resp)) // was, or is, somebody
		return R_NO_ROUTE;
	r = way_out(vni, orig, as, &node);
	if (r)
		return r;
	if (bpf_map_lookup_elem(&hosts, resp) && !opens(vni, p->key.proto, rport))
		return R_HOST_CLOSED;
	if (p->key.proto == PROTO_UDP && rport == VXLAN_PORT) // nobody speaks as a node
		return R_HOST_CLOSED;
	t->identity[1] = 0;
	t->set[1] = 0;
	__builtin_memset(&t->hop[1], 0, sizeof(t->hop[1]));
	__builtin_memcpy(t->hop[1].mac, router_mac, 6);
	if (node) {
		g->kind = 0;
		t->hop[1].node = node;
		return 0;
	}
	t->hop[1].how = HOW_OUTSIDE;
	if (g->kind == G_OUTSIDE && same(&g->addr[0], as))
		return 0;
	g->kind = G_OUTSIDE;
	g->flags = G_NEW;
	g->vni = OUTSIDE;
	g->addr[0] = *as;
	g->addr[1] = *resp;
	g->port[0] = oport;
	g->port[1] = rport;
	return 0;
}

// comes_in fills the originator of t, which is no endpoint, when it is outside:
// it came to an external address. 0, or the reason to drop.
inline_ int comes_in(struct packet *p, struct session *t)
{
	const union addr *resp = t->a_first ? &p->key.b : &p->key.a;
	struct front *f;

	if (p->key.vni != OUTSIDE)
		return R_NO_ROUTE;
	f = front_of(resp);
	if (!f || f->kind != FRONT_EXTERNAL)
		return R_NO_ROUTE;
	t->identity[0] = 0;
	t->set[0] = 0;
	__builtin_memset(&t->hop[0], 0, sizeof(t->hop[0]));
	__builtin_memcpy(t->hop[0].mac, router_mac, 6);
	t->hop[0].node = f->node;
	if (!f->node)
		t->hop[0].how = HOW_OUTSIDE;
	return 0;
}

// speaks_for: p, whose source is no endpoint, may come from where it came from:
// from outside itself, from the node of the exit, or, of a FloatingIP, between
// the node that holds its address and that of its backend.
inline_ int speaks_for(const struct packet *p)
{
	struct addr_key k = {.vni = p->vni};
	struct masquerade *m;
	struct front *f;
	struct exit *e;

	if (p->outside)
		return 1;
	if (!p->node)
		return 0;
	if (p->vni == OUTSIDE) {
		f = front_of(&p->dst);
		if (f && f->kind == FRONT_EXTERNAL && f->node == p->node)
			return 1;
		f = front_of(&p->src);
		return f && f->kind == FRONT_EXTERNAL && !f->node;
	}
	k.addr = p->dst;
	m = bpf_map_lookup_elem(&masquerades, &k);
	if (m)
		return m->node == p->node;
	e = bpf_map_lookup_elem(&exits, &p->vni);
	return e && e->node == p->node;
}

// host_has: a socket of the host itself would take what comes back for the guise of
// the responder, of the session in scratch memory.
alone int host_has(struct __sk_buff *skb)
{
	struct bpf_sock_tuple t = {};
	struct work *w = the_work();
	struct bpf_sock *s;
	u32 size = sizeof(t.ipv4);

	if (!w)
		return 1;
	const struct guise *g = &w->event.session.guise[1];
	u8 proto = w->packet.key.proto;
	if (mapped(&g->addr[1])) {
		t.ipv4.saddr = g->addr[1].w[3];
		t.ipv4.daddr = g->addr[0].w[3];
		t.ipv4.sport = g->port[1];
		t.ipv4.dport = g->port[0];
	} else {
		size = sizeof(t.ipv6);
		__builtin_memcpy(t.ipv6.saddr, &g->addr[1], 16);
		__builtin_memcpy(t.ipv6.daddr, &g->addr[0], 16);
		t.ipv6.sport = g->port[1];
		t.ipv6.dport = g->port[0];
	}
	if (proto == PROTO_TCP)
		s = bpf_skc_lookup_tcp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	else if (proto == PROTO_UDP)
		s = bpf_sk_lookup_udp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		return 0;
	if (!s)
		return 0;
	bpf_sk_release(s);
	return 1;
}

// drawn: a port of the node's own address is one that the tenant of that lot
// gets: three out of four, others for others, so that nobody takes every port
// towards a place where all of them go.
inline_ int drawn(u32 port, u32 lot)
{
	u32 h = (port ^ lot) * 0x9e3779b1;

	h = (h ^ h >> 15) * 0x85ebca77;
	return (h >> 13 & 3) != 0;
}

// draw picks a port of the range, one of the lot where there is a lot.
alone u32 draw(u32 first, u32 range, u32 lot)
{
	u32 port = 0;

	for (int i = 0; i < 4; i++) {
		port = first + bpf_get_prandom_u32() % (range ? range : 1);
		if (!lot || drawn(port, lot))
			break;
	}
	return port;
}

// masquerade_port finds one for a session that leaves, of scratch_session: that of the
// workload where it is free, else some. Under our own address only ports are
// taken that the host does not use. 0, or the reason to drop.
alone int masquerade_port(struct __sk_buff *skb)
{
	struct work *w = the_work();
	struct outlook *o = the_outlook();
	u32 first = 1024, range = 65536 - 1024, own, wanted, lot = 0;
	u64 now = bpf_ktime_get_coarse_ns();

	if (!o || !w)
		return R_FAILED;
	struct packet *p = &w->packet;
	struct guise *g = &w->event.session.guise[1];
	int ports = chooses_port(p);

	g->flags &= ~G_NEW;
	own = same(&g->addr[0], &o->own[0]) || same(&g->addr[0], &o->own[1]);
	if (own) {
		if (!ports)
			return R_UNSUPPORTED; // could be the host's own
		first = o->first;
		range = (u32)o->last - o->first + 1;
		u32 vni = p->key.vni;
		struct exit *e = bpf_map_lookup_elem(&exits, &vni);
		lot = e ? e->lot : 0;
	}
	wanted = bpf_ntohs(g->port[0]);
	if (own && (wanted < first || wanted >= first + range))
		wanted = draw(first, range, lot);
	for (int i = 0; i < DRAWS; i++) {
		g->port[0] = bpf_htons(wanted);
		if ((!lot || drawn(wanted, lot)) && !is_claimed(now) && !(own && host_has(skb)))
			return 0;
		if (!ports)
			return R_NO_PORT;
		wanted = draw(first, range, lot);
	}
	return R_NO_PORT;
}
