package balance

import (
	"math"
	"slices"
	"strings"
)

// slots is the size of a Maglev table: the prime of the paper's section 5.3.
const slots = 65537

// free is a slot that nobody has taken yet.
const free = math.MaxUint16

// probes are how often a key whose owner may not be chosen is hashed again.
const probes = 64

// maglev is consistent hashing by a table (Eisenbud et al., NSDI 2016, section
// 3.4), filled in proportion to weights.
type maglev struct {
	table []uint16 // places in members
	// members in the order of the table's numbers.
	members []int32
}

func newMaglev(p *Plan, members []int32) *maglev {
	// The order of filling is that of addresses, so that the order of the
	// configuration does not matter.
	m := &maglev{table: make([]uint16, slots), members: slices.Clone(members)}
	slices.SortStableFunc(m.members, func(a, b int32) int { return strings.Compare(p.addresses[a], p.addresses[b]) })
	// More than that have no place in the table; they get nothing.
	m.members = m.members[:min(len(m.members), free)]
	if len(m.members) == 0 {
		return m
	}
	m.fill(p)
	return m
}

// fill lets every endpoint take the next free slot of its own permutation, in
// turns; one with a fraction f of the greatest weight has f turns.
func (m *maglev) fill(p *Plan) {
	for i := range m.table {
		m.table[i] = free
	}
	n := len(m.members)
	at, skip, credit := make([]uint32, n), make([]uint32, n), make([]float64, n)
	heaviest := 0.0
	for i, e := range m.members {
		h := Mix(Hash(Start, p.addresses[e]))
		at[i] = uint32(h % slots)
		skip[i] = uint32(Mix(h+step)%(slots-1)) + 1
		heaviest = max(heaviest, p.weights[e])
		// The first turn is everybody's.
		credit[i] = 1
	}
	for filled := 0; ; {
		for i, e := range m.members {
			if credit[i] < 1 {
				credit[i] += p.weights[e] / heaviest
				if credit[i] < 1 {
					continue
				}
			}
			credit[i]--
			for m.table[at[i]] != free {
				at[i] = (at[i] + skip[i]) % slots
			}
			m.table[at[i]] = uint16(i)
			if filled++; filled == slots {
				return
			}
		}
	}
}

// pick is the owner of hash; when it may not be chosen or was tried, that of
// the next hash in a sequence that depends on the key only. So keys of other
// endpoints never move when one is unwell. -1: nobody was found.
func (m *maglev) pick(hash uint64, may []bool, tried *Tried) int {
	for k := range uint64(probes) {
		e := int(m.members[m.table[Mix(hash+k*step)%slots]])
		if may[e] && !tried.Has(e) {
			return e
		}
	}
	begin := int(hash % uint64(len(m.members)))
	for k := range m.members {
		if e := int(m.members[(begin+k)%len(m.members)]); may[e] && !tried.Has(e) {
			return e
		}
	}
	return -1
}
