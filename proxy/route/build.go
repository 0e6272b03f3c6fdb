package route

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// Build makes the Table of a Config. Backends and mirrors that name no cluster
// which exists become Invalid; anything else that is wrong is an error that
// says where.
func Build(cfg *l7.Config) (*Table, error) { return build(cfg, crowd) }

func build(cfg *l7.Config, crowd int) (*Table, error) {
	b := &builder{cfg: cfg, table: &Table{}, clusters: map[string]int{}, buckets: map[bucketKey]int32{}, levels: map[levelKey]int32{}}
	for i := range cfg.Clusters {
		b.clusters[cfg.Clusters[i].Name] = i
	}
	b.addListeners()
	order := make([]int, len(cfg.Routes))
	for i := range cfg.Routes {
		b.compileRoute(i)
		order[i] = i
	}
	if len(b.errors) > 0 {
		return nil, errors.Join(b.errors...)
	}
	slices.SortStableFunc(order, func(x, y int) int {
		return cmp.Or(cmp.Compare(cfg.Routes[x].Created, cfg.Routes[y].Created), strings.Compare(cfg.Routes[x].Name, cfg.Routes[y].Name))
	})
	for age, i := range order {
		b.attach(i, age)
	}
	t := b.table
	for i := range t.buckets {
		t.buckets[i].settle(crowd)
	}
	t.doors.build()
	t.hosts.build()
	t.paths.build()
	return t, nil
}

type builder struct {
	cfg      *l7.Config
	table    *Table
	clusters map[string]int
	compiled [][]compiledRule // by route
	claims   []claims         // by listener
	buckets  map[bucketKey]int32
	levels   map[levelKey]int32
	errors   []error
}

type bucketKey struct {
	kind  uint8
	owner int32
	key   string
}

type levelKey struct {
	listener int32
	space    int8
	hostname string
}

// compiledRule is a rule and its matches, before they are put in their places.
type compiledRule struct {
	rule    *Rule
	matches []compiledMatch
}

type compiledMatch struct {
	kind uint8
	path string
	candidate
}

func (b *builder) fail(format string, args ...any) {
	b.errors = append(b.errors, fmt.Errorf(format, args...))
}

func (b *builder) addListeners() {
	t := b.table
	addresses := map[string]int32{}
	shared := map[int32][]int{}
	for i := range b.cfg.Listeners {
		c := &b.cfg.Listeners[i]
		address, known := addresses[c.Address]
		if !known {
			address = int32(len(addresses))
			addresses[c.Address] = address
		}
		l := listener{address: address, hostname: c.Hostname, secure: c.TLS != nil, keepSlashes: c.EncodedSlashes, any: [2]int32{-1, -1}}
		n, _ := strconv.ParseUint(c.Address[strings.LastIndexByte(c.Address, ':')+1:], 10, 16)
		l.port = uint16(n)
		t.listeners = append(t.listeners, l)
		shared[address] = append(shared[address], i)
		name, wild := trimWildcard(c.Hostname)
		hash, _ := hostnameHash(name)
		t.doors.put(hostHash(address, 0, wild || name == "", hash), int32(i))
	}
	for _, all := range shared {
		var depths uint64
		for _, i := range all {
			if name, wild := trimWildcard(t.listeners[i].hostname); wild {
				_, n := hostnameHash(name)
				depths |= labelBit(n)
			}
		}
		for _, i := range all {
			t.listeners[i].crowded, t.listeners[i].depths = len(all) > 1, depths
		}
	}
	b.claims = make([]claims, len(t.listeners))
}

// hostnameHash is the hash of a host name as Scratch.split makes it, and its
// labels; of an empty name the seed and 0.
func hostnameHash(name string) (uint64, int) {
	if name == "" {
		return seed, 0
	}
	labels := strings.Split(name, ".")
	h := seed
	for _, l := range slices.Backward(labels) {
		h = element(h, []byte(l))
	}
	return h, len(labels)
}

// labelBit is where a wildcard over n labels is noted. No valid name has a
// wildcard over more than 64.
func labelBit(n int) uint64 { return 1 << (n - 1) }

// attach puts a route into the listeners that take it.
func (b *builder) attach(i, age int) {
	c := &b.cfg.Routes[i]
	for n := range b.cfg.Listeners {
		l := &b.cfg.Listeners[n]
		if len(c.Listeners) > 0 && !slices.Contains(c.Listeners, l.Name) || !fits(c.Kind, l) {
			continue
		}
		hostnames := c.Hostnames
		if len(hostnames) == 0 {
			hostnames = []string{""}
		}
		hostnames = intersecting(hostnames, l.Hostname)
		if len(hostnames) == 0 {
			continue
		}
		kind := cmp.Or(c.Kind, l7.HTTPRoute)
		switch kind {
		case l7.TCPRoute:
			if b.table.listeners[n].tcp == nil && len(b.compiled[i]) > 0 {
				b.table.listeners[n].tcp = b.compiled[i][0].rule
			}
			continue
		case l7.HTTPRoute, l7.GRPCRoute:
			if other := b.claims[n].claim(hostnames, l.Hostname, kind, c.Name); other != "" {
				b.table.rejected = append(b.table.rejected, Rejected{l.Name, c.Name, other})
				continue
			}
		}
		for _, h := range hostnames {
			b.fill(b.level(int32(n), kind, h), b.compiled[i], age)
		}
	}
}

// fits says whether a listener takes routes of a kind.
func fits(kind l7.Kind, l *l7.Listener) bool {
	switch cmp.Or(kind, l7.HTTPRoute) {
	case l7.HTTPRoute, l7.GRPCRoute:
		return l.Protocol == "" || l.Protocol == l7.AutoHTTP || l.Protocol == l7.HTTP1 || l.Protocol == l7.HTTP2
	case l7.TLSRoute:
		return l.Protocol == l7.TLS || l.Protocol == l7.TCP && l.TLS != nil
	case l7.TCPRoute:
		return l.Protocol == l7.TCP
	}
	return false
}

// intersecting are the hostnames that share a host with the listener's.
func intersecting(hostnames []string, of string) []string {
	var out []string
	for _, h := range hostnames {
		if (covers(h, of) || covers(of, h)) && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

// covers says whether every host of q is one of p. Empty: all hosts.
func covers(p, q string) bool {
	if p == "" || p == q {
		return true
	}
	name, wild := trimWildcard(p)
	rest, _ := trimWildcard(q)
	return wild && rest != q && rest == name || wild && strings.HasSuffix(rest, "."+name)
}

func (b *builder) level(n int32, kind l7.Kind, hostname string) int32 {
	space := int8(byHost)
	if kind == l7.TLSRoute {
		space = bySNI
	}
	k := levelKey{n, space, hostname}
	if at, known := b.levels[k]; known {
		return at
	}
	t := b.table
	at := int32(len(t.levels))
	name, wild := trimWildcard(hostname)
	t.levels = append(t.levels, level{host: name, wild: wild, listener: n, space: space, kind: kind,
		seed: mix(uint64(at) + 1), patterns: -1, services: -1, every: -1})
	b.levels[k] = at
	if name == "" {
		t.listeners[n].any[space] = at
		return at
	}
	hash, labels := hostnameHash(name)
	t.hosts.put(hostHash(n, space, wild, hash), at)
	if wild {
		t.listeners[n].wild |= labelBit(labels)
	}
	return at
}

// fill puts the matches of a route into a level.
func (b *builder) fill(at int32, rules []compiledRule, age int) {
	v := &b.table.levels[at]
	for i := range rules {
		r := &rules[i]
		if v.kind == l7.TLSRoute {
			if v.tls == nil {
				v.tls = r.rule
			}
			return
		}
		for j := range r.matches {
			m := r.matches[j]
			m.order.route, m.order.rule, m.order.match = age, i, j
			b.place(at, &m)
		}
	}
}

// place puts a match into its bucket.
func (b *builder) place(at int32, m *compiledMatch) {
	t := b.table
	v := &t.levels[at]
	k := bucketKey{m.kind, at, m.path}
	n, known := b.buckets[k]
	if !known {
		n = int32(len(t.buckets))
		b.buckets[k] = n
		t.buckets = append(t.buckets, bucket{kind: m.kind, owner: at, key: m.path})
		var hash uint64
		hashed := true
		switch m.kind {
		case exactPath, pathPrefix, grpcBoth:
			var elements int
			hash, elements = pathHash(m.path)
			if m.kind == pathPrefix {
				v.depths |= 1 << elements
			}
			v.exact = v.exact || m.kind == exactPath
		case grpcService:
			hash = element(seed, []byte(m.path))
		case grpcCall:
			hash, v.calls = element(seed, []byte(m.path)), true
		case pathPattern:
			v.patterns, hashed = n, false
		case grpcPattern:
			v.services, hashed = n, false
		case grpcEvery:
			v.every, hashed = n, false
		}
		if hashed {
			t.paths.put(keyHash(m.kind, v.seed, hash), n)
		}
	}
	t.buckets[n].list = append(t.buckets[n].list, m.candidate)
}

// pathHash is the hash of a path as Scratch.walk makes it, and its elements.
// The empty path has none.
func pathHash(path string) (uint64, int) {
	h := seed
	if path == "" {
		return h, 0
	}
	elements := strings.Split(path[1:], "/")
	for _, e := range elements {
		h = element(h, []byte(e))
	}
	return h, len(elements)
}

func (b *builder) cluster(name string) int {
	if n, ok := b.clusters[name]; ok {
		return n
	}
	return Invalid
}

// conditions compiles matches of headers or query parameters; of equal names
// the first counts.
func (b *builder) conditions(where string, all []l7.ValueMatch, headers bool) []condition {
	var out []condition
	for i, m := range all {
		c := condition{name: m.Name, value: m.Value}
		if headers {
			c.name = strings.ToLower(m.Name)
			c.id = message.Known(c.name)
		}
		if slices.ContainsFunc(out, func(o condition) bool { return o.name == c.name }) {
			continue
		}
		if m.Kind == l7.Regex {
			p, err := compilePattern(m.Value)
			if err != nil {
				b.fail("%s[%d].value: %w", where, i, err)
			}
			c.pattern = p
		}
		out = append(out, c)
	}
	return out
}
