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

// Build makes the Table of a Config. Routes that no listener takes are left
// out; backends and mirrors that name no cluster which exists become Invalid;
// anything else that l7.Config.Validate has against routes and listeners is an
// error that says all of it.
func Build(cfg *l7.Config) (*Table, error) { return build(cfg, crowd) }

func build(cfg *l7.Config, crowd int) (*Table, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	b := &builder{cfg: cfg, table: &Table{}, clusters: map[string]int{}, buckets: map[bucketKey]int32{},
		keys: map[string]string{}, levels: map[levelKey]int32{}}
	for i := range cfg.Clusters {
		b.clusters[cfg.Clusters[i].Name] = i
	}
	b.addListeners()
	for i := range cfg.Routes {
		b.compileRoute(i)
	}
	if len(b.errors) > 0 {
		return nil, errors.Join(b.errors...)
	}
	for age, a := range cfg.Attachments() {
		b.attach(&a, age)
	}
	t := b.table
	b.settle(crowd)
	t.doors.build()
	t.hosts.build()
	t.paths.build()
	return t, nil
}

// check refuses a Config whose routes or listeners mean nothing.
func check(cfg *l7.Config) error {
	var all []error
	for _, p := range cfg.Validate() {
		if !p.Soft && (strings.HasPrefix(p.Field, "routes") || strings.HasPrefix(p.Field, "listeners[")) {
			all = append(all, p)
		}
	}
	return errors.Join(all...)
}

type builder struct {
	cfg      *l7.Config
	table    *Table
	clusters map[string]int
	compiled [][]compiledRule // by route
	buckets  map[bucketKey]int32
	lists    [][]placed // by bucket
	keys     map[string]string
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
	placed
}

// placed is a candidate in a bucket that is being filled.
type placed struct {
	candidate
	order order
}

// order is the precedence among candidates whose path ranks the same, as the
// Gateway API says; the smaller number comes first.
type order struct {
	rank    [3]int // of patterns and of the method
	headers int    // more come first
	query   int    // more come first
	route   int    // by age, then name
	rule    int
	match   int
}

func (o *order) compare(p *order) int {
	return cmp.Or(slices.Compare(o.rank[:], p.rank[:]), cmp.Compare(p.headers, o.headers), cmp.Compare(p.query, o.query),
		cmp.Compare(o.route, p.route), cmp.Compare(o.rule, p.rule), cmp.Compare(o.match, p.match))
}

// settle sorts the buckets, which are complete, and lays their candidates out
// one after the other; those with more than crowd get an index.
func (b *builder) settle(crowd int) {
	t := b.table
	for i, list := range b.lists {
		slices.SortFunc(list, func(x, y placed) int { return x.order.compare(&y.order) })
		k := &t.buckets[i]
		k.first, k.count, k.crowd = int32(len(t.candidates)), int32(len(list)), -1
		for j := range list {
			t.candidates = append(t.candidates, list[j].candidate)
		}
	}
	t.candidates = slices.Clip(t.candidates)
	for i := range t.buckets {
		if k := &t.buckets[i]; int(k.count) > crowd {
			k.crowd = int32(len(t.crowds))
			t.crowds = append(t.crowds, newCrowd(t.candidates[k.first:k.first+k.count]))
		}
	}
}

func (b *builder) fail(format string, args ...any) {
	b.errors = append(b.errors, fmt.Errorf(format, args...))
}

func (b *builder) addListeners() {
	t := b.table
	addresses := map[[2]string]int32{} // Workloads of each View see another one
	shared := map[int32][]int{}
	for i := range b.cfg.Listeners {
		c := &b.cfg.Listeners[i]
		place := [2]string{c.View, c.Address}
		address, known := addresses[place]
		if !known {
			address = int32(len(addresses))
			addresses[place] = address
		}
		l := listener{address: address, hostname: c.Hostname, secure: c.TLS != nil, keepSlashes: c.EncodedSlashes, any: [2]int32{-1, -1}}
		n, _ := strconv.ParseUint(c.Address[strings.LastIndexByte(c.Address, ':')+1:], 10, 16)
		l.port = uint16(n)
		t.listeners = append(t.listeners, l)
		shared[address] = append(shared[address], i)
		name, wild := l7.TrimWildcard(c.Hostname)
		hash, _ := hostnameHash(name)
		t.doors.put(hostHash(address, 0, wild || name == "", hash), int32(i))
	}
	for _, all := range shared {
		var depths uint64
		for _, i := range all {
			if name, wild := l7.TrimWildcard(t.listeners[i].hostname); wild {
				_, n := hostnameHash(name)
				depths |= labelBit(n)
			}
		}
		for _, i := range all {
			t.listeners[i].crowded, t.listeners[i].depths = len(all) > 1, depths
		}
	}
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

// attach puts a route into a listener. Age is smaller for older routes.
func (b *builder) attach(a *l7.Attachment, age int) {
	t, r := b.table, &b.cfg.Routes[a.Route]
	if a.Other >= 0 {
		t.rejected = append(t.rejected, Rejected{b.cfg.Listeners[a.Listener].Name, r.Name, b.cfg.Routes[a.Other].Name})
		return
	}
	if r.Kind == l7.TCPRoute {
		if l := &t.listeners[a.Listener]; l.tcp == nil {
			l.tcp = b.compiled[a.Route][0].rule
		}
		return
	}
	for _, h := range a.Hostnames {
		b.fill(b.level(int32(a.Listener), t.routes[a.Route].Kind, h), b.compiled[a.Route], age)
	}
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
	name, wild := l7.TrimWildcard(hostname)
	t.levels = append(t.levels, level{host: name, wild: wild, listener: n, space: space, grpc: kind == l7.GRPCRoute,
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
		if v.space == bySNI {
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
		t.buckets = append(t.buckets, bucket{kind: m.kind, owner: at, key: b.keep(m.path)})
		b.lists = append(b.lists, nil)
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
	b.lists[n] = append(b.lists[n], m.placed)
}

// keep makes equal keys one piece of memory.
func (b *builder) keep(key string) string {
	if k, known := b.keys[key]; known {
		return k
	}
	b.keys[key] = key
	return key
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
