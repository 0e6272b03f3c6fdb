package compile

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// set sets a row of a table that may not be there yet.
func set[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// piece is a part of a table that comes from one place.
type piece[R any] struct {
	id   pieceID
	rows []R // in the order of their keys
}

type pieceID struct {
	kind string
	key  Key
	vni  snapshot.VNI
}

func (p pieceID) compare(o pieceID) int {
	return cmp.Or(compareKeys(p.key, o.key), cmp.Compare(p.kind, o.kind), cmp.Compare(p.vni, o.vni))
}

// sameSlice reports whether both are the very same slice.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// tableOf says how rows become a table.
type tableOf[K comparable, V, R any] struct {
	key   func(R) K
	value func(R) V
	same  func(a, b R) bool
}

var (
	endpointTable = tableOf[snapshot.Addr, snapshot.Endpoint, snapshot.Endpoint]{
		func(e snapshot.Endpoint) snapshot.Addr { return e.Addr }, func(e snapshot.Endpoint) snapshot.Endpoint { return e },
		func(a, b snapshot.Endpoint) bool { return a == b }}
	setTable = tableOf[snapshot.PolicyKey, policy.Set, setRow]{
		func(s setRow) snapshot.PolicyKey { return s.key }, func(s setRow) policy.Set { return s.set }, sameSet}
	serviceTable = tableOf[snapshot.ServiceKey, snapshot.Service, snapshot.Service]{
		func(s snapshot.Service) snapshot.ServiceKey { return s.ServiceKey }, func(s snapshot.Service) snapshot.Service { return s }, snapshot.SameService}
	frontendTable = tableOf[snapshot.FrontendKey, snapshot.Frontend, snapshot.Frontend]{
		func(f snapshot.Frontend) snapshot.FrontendKey { return f.FrontendKey }, itself[snapshot.Frontend], equal[snapshot.Frontend]}
	routeTable = tableOf[string, l7.Route, l7.Route]{
		func(r l7.Route) string { return r.Name }, itself[l7.Route], equal[l7.Route]}
	clusterTable = tableOf[string, snapshot.Cluster, snapshot.Cluster]{
		func(c snapshot.Cluster) string { return c.Name }, itself[snapshot.Cluster], equal[snapshot.Cluster]}
)

func itself[R any](r R) R { return r }

func equal[R any](a, b R) bool { return reflect.DeepEqual(a, b) }

// made is a table with what it was made from.
type made[K comparable, V, R any] struct {
	pieces []piece[R]
	table  map[K]V
}

// shared are the tables of one assembly: nodes with the same pieces have the
// same table, which saves a large Network a copy for each of its nodes.
type shared struct {
	endpoints []made[snapshot.Addr, snapshot.Endpoint, snapshot.Endpoint]
	sets      []made[snapshot.PolicyKey, policy.Set, setRow]
	services  []made[snapshot.ServiceKey, snapshot.Service, snapshot.Service]
	frontends []made[snapshot.FrontendKey, snapshot.Frontend, snapshot.Frontend]
	routes    []made[string, l7.Route, l7.Route]
	clusters  []made[string, snapshot.Cluster, snapshot.Cluster]
}

// maxShared bounds the search for a table to share.
const maxShared = 8

// make makes a table from its pieces, which it sorts. It is the table of
// before with the rows of other pieces exchanged; before itself stays as it is,
// and is the answer when no row is different. Rows of two pieces never share a
// key, unless they are the same row.
func (t *tableOf[K, V, R]) make(before map[K]V, was []piece[R], is *[]piece[R], others *[]made[K, V, R]) map[K]V {
	slices.SortStableFunc(*is, func(a, b piece[R]) int { return a.id.compare(b.id) })
	*is = slices.CompactFunc(*is, func(a, b piece[R]) bool { return a.id == b.id })
	var gone, come [][]R
	exchange(was, *is, func(old, now []R) {
		if !sameSlice(old, now) {
			old, now = t.trim(old, now)
			gone, come = append(gone, old), append(come, now)
		}
	})
	if before != nil && len(gone) == 0 {
		return before
	}
	for _, o := range *others {
		if slices.EqualFunc(o.pieces, *is, func(a, b piece[R]) bool { return a.id == b.id && sameSlice(a.rows, b.rows) }) {
			return o.table
		}
	}
	out := maps.Clone(before)
	if out == nil {
		n := 0
		for _, rows := range come {
			n += len(rows)
		}
		out = make(map[K]V, n)
	}
	for _, rows := range gone {
		for _, r := range rows {
			delete(out, t.key(r))
		}
	}
	for _, rows := range come {
		for _, r := range rows {
			out[t.key(r)] = t.value(r)
		}
	}
	if len(*others) < maxShared {
		*others = append(*others, made[K, V, R]{*is, out})
	}
	return out
}

// trim leaves out what two lists begin and end with in common.
func (t *tableOf[K, V, R]) trim(a, b []R) ([]R, []R) {
	for len(a) > 0 && len(b) > 0 && t.same(a[0], b[0]) {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && t.same(a[len(a)-1], b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

// exchange calls do for every pair of pieces of one place; nil where there is
// none.
func exchange[R any](was, is []piece[R], do func(old, now []R)) {
	for len(was) > 0 || len(is) > 0 {
		order := 0
		switch {
		case len(was) == 0:
			order = 1
		case len(is) == 0:
			order = -1
		default:
			order = was[0].id.compare(is[0].id)
		}
		switch {
		case order < 0:
			do(was[0].rows, nil)
			was = was[1:]
		case order > 0:
			do(nil, is[0].rows)
			is = is[1:]
		default:
			do(was[0].rows, is[0].rows)
			was, is = was[1:], is[1:]
		}
	}
}
