package route

import (
	"moire.dev/moire/snapshot/l7"
)

// Table is the routes of one Config, ready to be looked up in. It never
// changes, and any number of workers may use it at a time.
type Table struct {
	routes     []*Route
	rules      []*Rule
	listeners  []listener
	doors      index // listeners by address and hostname
	hosts      index // levels by listener and hostname
	levels     []level
	paths      index // buckets by level, kind and key
	buckets    []bucket
	candidates []candidate
	crowds     []crowded
	rejected   []Rejected
}

// listener is what the table knows of an l7.Listener.
type listener struct {
	address     int32 // number of its address: listeners of one address share it
	crowded     bool  // it shares its address
	hostname    string
	keepSlashes bool
	secure      bool
	port        uint16
	depths      uint64 // label counts of the hostnames with a wildcard on its address

	// Of its routes, by host.
	wild uint64 // label counts of hostnames with a wildcard: bit n-1 for n labels
	any  [2]int32
	tcp  *Rule
}

// Of the two tables of levels a listener has, one is for SNI.
const (
	byHost = iota
	bySNI
)

// level is the routes of one hostname of one listener.
type level struct {
	host     string // without "*."
	seed     uint64
	depths   uint64 // element counts of path prefixes: bit n for n elements
	tls      *Rule
	listener int32
	patterns int32 // bucket of candidates with a path pattern; -1: none
	services int32 // bucket of candidates with a service pattern; -1: none
	every    int32 // bucket of candidates with neither service nor method; -1: none
	space    int8  // byHost or bySNI
	wild     bool
	grpc     bool
	exact    bool // some candidate has an exact path
	calls    bool // some candidate has a method without a service
}

// Kinds of buckets that are found by hash.
const (
	exactPath = iota + 1
	pathPrefix
	pathPattern
	grpcBoth
	grpcService
	grpcPattern
	grpcCall
	grpcEvery
)

// Rules is the number of rules: their IDs are below it.
func (t *Table) Rules() int { return len(t.rules) }

// Rule by ID.
func (t *Table) Rule(id int) *Rule { return t.rules[id] }

// Routes is the number of routes: their IDs are below it.
func (t *Table) Routes() int { return len(t.routes) }

// Route by ID.
func (t *Table) Route(id int) *Route { return t.routes[id] }

// Rejected are the routes that were not attached to a listener because a route
// of the other kind was there first.
func (t *Table) Rejected() []Rejected { return t.rejected }

// Rejected is one route that a listener did not take (Gateway API, GRPCRoute
// spec.hostnames): an HTTPRoute and a GRPCRoute must not share a host of one
// listener, and the older stays.
type Rejected struct {
	Listener, Route, Other string
}

// bucket finds the candidates of a level for a key, or nil.
func (t *Table) bucket(kind uint8, owner int32, hash uint64, key []byte) *bucket {
	h := keyHash(kind, t.levels[owner].seed, hash)
	for at := uint32(h); ; {
		var n int32
		if n, at = t.paths.next(at, h); n < 0 {
			return nil
		}
		if b := &t.buckets[n]; b.kind == kind && b.owner == owner && b.key == string(key) {
			return b
		}
	}
}

func keyHash(kind uint8, owner, hash uint64) uint64 {
	return mix(hash ^ owner + uint64(kind)*odd)
}

// level finds the routes of a listener for a host, or -1.
func (t *Table) level(listener int32, space int8, wild bool, hash uint64, host []byte) int32 {
	h := hostHash(listener, space, wild, hash)
	for at := uint32(h); ; {
		var n int32
		if n, at = t.hosts.next(at, h); n < 0 {
			return -1
		}
		if l := &t.levels[n]; l.listener == listener && l.space == space && l.wild == wild && l.host == string(host) {
			return n
		}
	}
}

func hostHash(owner int32, space int8, wild bool, hash uint64) uint64 {
	n := uint64(owner)<<3 | uint64(space)<<1
	if wild {
		n |= 1
	}
	return mix(hash ^ n*odd)
}

// door finds the listener of an address for a host: itself when it is alone.
// -1: none takes this host.
func (t *Table) door(n int, s *Scratch) int {
	l := &t.listeners[n]
	if !l.crowded {
		if l.hostname == "" || admits(l.hostname, s.host[:s.hostLen]) {
			return n
		}
		return -1
	}
	if d := t.doorOf(l.address, false, s.hostHash, s.host[:s.hostLen]); d >= 0 {
		return d
	}
	for k := min(s.labels-1, len(s.hosts)); k > 0; k-- {
		if l.depths&(1<<(k-1)) == 0 {
			continue
		}
		if d := t.doorOf(l.address, true, s.hosts[k-1], s.host[s.starts[k-1]:s.hostLen]); d >= 0 {
			return d
		}
	}
	return t.doorOf(l.address, true, seed, nil)
}

func (t *Table) doorOf(address int32, wild bool, hash uint64, host []byte) int {
	h := hostHash(address, 0, wild, hash)
	for at := uint32(h); ; {
		var n int32
		if n, at = t.doors.next(at, h); n < 0 {
			return -1
		}
		l := &t.listeners[n]
		name, w := l7.TrimWildcard(l.hostname)
		if l.address == address && (w || name == "") == wild && name == string(host) {
			return int(n)
		}
	}
}

// admits says whether a hostname, perhaps with a wildcard, takes a host.
func admits(hostname string, host []byte) bool {
	name, wild := l7.TrimWildcard(hostname)
	if !wild {
		return name == string(host)
	}
	n := len(host) - len(name)
	return n > 1 && host[n-1] == '.' && string(host[n:]) == name
}
