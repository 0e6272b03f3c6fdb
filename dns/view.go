package dns

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"moire.dev/moire/snapshot"
)

// view is the names of one Network. It never changes.
type view struct {
	vni     snapshot.VNI
	config  snapshot.DNS
	network snapshot.Network
	zone    string // key
	ttl     uint32
	order   order
	names   map[string]*entry       // by key
	below   map[string]int          // key of our zone -> how many names are below it
	ptr     map[netip.Addr][]string // keys, sorted
	outer   map[string]bool         // keys of what the wildcards outside of our zone stand for
	routes  []delegation            // longest zone first
	nodata  *answer                 // for names in our zone
	missing *answer
	outside *answer // nodata for names of the tenant elsewhere
	// problems are records that cannot be read.
	problems []string
}

// delegation is a zone that is asked elsewhere.
type delegation struct {
	zone    string // key
	servers []netip.AddrPort
}

// kind of thing that has a name; the first that has it keeps it.
type kind uint8

const (
	ofService kind = iota
	ofFloating
	ofWorkload
	kinds
)

// entry is one name. Everything but turn never changes.
type entry struct {
	addrs  [kinds][]netip.Addr // sorted; Services once for each port
	srv    []target            // sorted
	custom map[uint16]*answer  // the tenant's own records, by type; nil: none
	cname  *answer             // of custom
	alias  string              // key that cname leads to
	a      *answer
	aaaa   *answer
	found  *answer // SRV of its own making
	turn   atomic.Uint32
}

// target of a SRV record.
type target struct {
	key  string
	port uint16
}

// answer of one type; nil: the name has none.
func (e *entry) answer(kind uint16) *answer {
	switch kind {
	case dns.TypeA:
		return e.a
	case dns.TypeAAAA:
		return e.aaaa
	}
	if a := e.custom[kind]; a != nil || kind != dns.TypeSRV {
		return a
	}
	return e.found
}

// empty: nothing is left of it.
func (e *entry) empty() bool {
	return e.custom == nil && len(e.srv) == 0 && !slices.ContainsFunc(e.addrs[:], func(a []netip.Addr) bool { return len(a) > 0 })
}

// settle makes what is answered of what the entry has. Custom records stand in
// the place of all others of their type.
func (e *entry) settle(ttl uint32) {
	e.a, e.aaaa = e.custom[dns.TypeA], e.custom[dns.TypeAAAA]
	for _, addrs := range e.addrs {
		if len(addrs) == 0 {
			continue
		}
		once := slices.Compact(slices.Clone(addrs))
		if e.a == nil {
			e.a = addresses(once, true, ttl)
		}
		if e.aaaa == nil {
			e.aaaa = addresses(once, false, ttl)
		}
		break
	}
	e.found = nil
	if len(e.srv) > 0 {
		var blocks [][]byte
		for _, t := range e.srv {
			data := append([]byte{0, 0, 0, 100, byte(t.port >> 8), byte(t.port)}, t.key...)
			blocks = append(blocks, block(dns.TypeSRV, ttl, data))
		}
		e.found = set(blocks)
	}
}

// what is known of a name.
type known uint8

const (
	elsewhere known = iota // ask where route says
	here                   // entry says it
	nothing                // the name has no such record
	nobody                 // there is no such name
)

// find looks a name up, without allocating.
func (v *view) find(key []byte) (*entry, known) {
	if e := v.names[string(key)]; e != nil && (e.custom != nil || !v.delegated(key)) {
		return e, here
	}
	if v.delegated(key) || !within(key, v.zone) {
		return v.findOuter(key)
	}
	if len(key) == len(v.zone) || v.below[string(key)] > 0 {
		return nil, nothing
	}
	// The closest encloser is the longest name above that is there (RFC 4592).
	for up := key[1+int(key[0]):]; len(up) >= len(v.zone); up = up[1+int(up[0]):] {
		if e := v.wildcard(up); e != nil {
			return e, here
		}
		if v.names[string(up)] != nil || v.below[string(up)] > 0 {
			break
		}
	}
	return nil, nobody
}

// findOuter looks for wildcards of the tenant outside of our zone.
func (v *view) findOuter(key []byte) (*entry, known) {
	if len(v.outer) == 0 || len(key) < 2 {
		return nil, elsewhere
	}
	for up := key[1+int(key[0]):]; len(up) > 1; up = up[1+int(up[0]):] {
		if v.outer[string(up)] {
			if e := v.wildcard(up); e != nil {
				return e, here
			}
		}
	}
	return nil, elsewhere
}

// wildcard is the entry of *.up.
func (v *view) wildcard(up []byte) *entry {
	var b [maxName + 2]byte
	n := copy(b[:], "\x01*")
	n += copy(b[n:], up)
	return v.names[string(b[:n])]
}

// delegated reports whether a delegation is nearer to the name than our zone.
func (v *view) delegated(key []byte) bool {
	d := nearest(v.routes, key)
	return d != nil && (len(d.zone) > len(v.zone) || !within(key, v.zone))
}

// nearest is the delegation that the name belongs to; nil: none.
func nearest[K string | []byte](routes []delegation, key K) *delegation {
	for i := range routes {
		if within(key, routes[i].zone) {
			return &routes[i]
		}
	}
	return nil
}

// route says whom to ask for a name that is elsewhere: the zone that it is
// asked as part of, "\x00" for every other, and the servers; none: the node's.
func (v *view) route(key string) (zone string, servers []netip.AddrPort) {
	if d := nearest(v.routes, key); d != nil {
		return d.zone, d.servers
	}
	return "\x00", v.config.Forward
}

// inside reports whether an address belongs to the Network or to one that it
// is linked to.
func (v *view) inside(a netip.Addr) bool {
	if _, ok := v.ptr[a]; ok {
		return true
	}
	return slices.ContainsFunc(v.network.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// reverse answers for the name of an address (in-addr.arpa, ip6.arpa).
func (v *view) reverse(key []byte) (targets []string, k known) {
	p, ok := reversed(key)
	if !ok || nearest(v.routes, key) != nil {
		return nil, elsewhere
	}
	if p.IsSingleIP() {
		if t := v.ptr[p.Addr()]; t != nil {
			return t, here
		}
		for _, own := range []netip.Addr{snapshot.NameServer4, snapshot.NameServer6, snapshot.Metadata4} {
			if own == p.Addr() {
				return nil, nobody
			}
		}
	}
	for _, n := range v.network.Prefixes {
		switch {
		case n.Bits() <= p.Bits() && n.Contains(p.Addr()) && p.IsSingleIP():
			return nil, nobody
		case n.Overlaps(p):
			return nil, nothing
		}
	}
	return nil, elsewhere
}

const (
	inAddr = "\x07in-addr\x04arpa\x00"
	ip6    = "\x03ip6\x04arpa\x00"
)

// reversed reads the address, or the beginning of one, from the name.
func reversed(key []byte) (netip.Prefix, bool) {
	if within(key, inAddr) {
		var a [4]byte
		n := 0
		for labels := key[:len(key)-len(inAddr)]; len(labels) > 0; labels = labels[1+int(labels[0]):] {
			octet, ok := decimal(labels[1 : 1+int(labels[0])])
			if !ok || n == 4 {
				return netip.Prefix{}, false
			}
			copy(a[1:], a[:3])
			a[0] = octet
			n++
		}
		return netip.PrefixFrom(netip.AddrFrom4(a), 8*n), true
	}
	if !within(key, ip6) {
		return netip.Prefix{}, false
	}
	var a [16]byte
	n := 0
	for labels := key[:len(key)-len(ip6)]; len(labels) > 0; labels = labels[1+int(labels[0]):] {
		digit, ok := hexadecimal(labels[1 : 1+int(labels[0])])
		if !ok || n == 32 {
			return netip.Prefix{}, false
		}
		for i := 15; i > 0; i-- {
			a[i] = a[i]>>4 | a[i-1]<<4
		}
		a[0] = a[0]>>4 | digit<<4
		n++
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), 4*n), true
}

func decimal(s []byte) (byte, bool) {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	ok := len(s) >= 1 && len(s) <= 3 && n < 256 && (s[0] != '0' || len(s) == 1)
	return byte(n), ok
}

func hexadecimal(s []byte) (byte, bool) {
	if len(s) != 1 {
		return 0, false
	}
	switch c := s[0]; {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

// seconds of a TTL, at least one.
func seconds(d time.Duration) uint32 { return uint32(min(max(d/time.Second, 1), 1<<31-1)) }
