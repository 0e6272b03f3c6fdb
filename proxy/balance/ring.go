package balance

import (
	"cmp"
	"math"
	"slices"
	"strconv"
)

const (
	// Ketama's number of points for one endpoint of the mean weight, in rings of
	// up to 256 Ki points; the configured size of a ring is a minimum.
	pointsEach = 160
	grownRing  = 256 << 10
	// maxRing is Envoy's upper bound.
	maxRing = 8 << 20
)

// ring is consistent hashing on a circle of 64-bit hashes (Ketama). An endpoint
// has points in proportion to its weight; a key belongs to the first point at
// or after its hash.
type ring struct {
	points []point
	// from has for each value of the highest bits where to begin to look; there
	// are as many as points, so a look-up takes one or two steps.
	from  []uint32
	shift uint
}

type point struct {
	hash   uint64
	member int32
}

func newRing(p *Plan, members []int32, least int) *ring {
	sum, lightest := 0.0, math.Inf(1)
	for _, m := range members {
		sum += p.weights[m]
		lightest = min(lightest, p.weights[m])
	}
	// As many points that the lightest endpoint has a whole number of them.
	size := float64(min(max(least, min(pointsEach*len(members), grownRing), len(members)), maxRing))
	size = min(math.Ceil(lightest/sum*size)*sum/lightest, maxRing)
	points := make([]point, 0, int(size)+len(members))
	var key []byte
	for _, m := range members {
		n := max(1, int(math.Round(p.weights[m]/sum*size)))
		for k := range n {
			key = strconv.AppendInt(append(append(key[:0], p.addresses[m]...), '_'), int64(k), 10)
			points = append(points, point{Mix(Hash(Start, key)), m})
		}
	}
	slices.SortFunc(points, func(a, b point) int {
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return cmp.Compare(p.addresses[a.member], p.addresses[b.member])
	})
	return index(points)
}

func index(points []point) *ring {
	bits := uint(1)
	for 1<<bits < len(points) {
		bits++
	}
	r := &ring{points: points, from: make([]uint32, 1<<bits), shift: 64 - bits}
	next := uint64(0)
	for i, pt := range points {
		for ; next <= pt.hash>>r.shift; next++ {
			r.from[next] = uint32(i)
		}
	}
	for ; next < uint64(len(r.from)); next++ {
		r.from[next] = uint32(len(points))
	}
	return r
}

// pick is the owner of hash among those that may be chosen and were not tried:
// the same as on a ring without the others. -1: nobody.
func (r *ring) pick(hash uint64, may []bool, tried *Tried) int {
	hash = Mix(hash)
	n := len(r.points)
	i := int(r.from[hash>>r.shift])
	for i < n && r.points[i].hash < hash {
		i++
	}
	for range n {
		if i == n {
			i = 0
		}
		if m := int(r.points[i].member); may[m] && !tried.Has(m) {
			return m
		}
		i++
	}
	return -1
}
