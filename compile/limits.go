package compile

import (
	"math"
	"strconv"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// limitOf reads a Limit; what cannot be read is no limit, validation refuses it.
func limitOf(l *v1alpha1.Limit) snapshot.Limit {
	if l == nil {
		return snapshot.Limit{}
	}
	return snapshot.Limit{Egress: rate(l.Egress), Ingress: rate(l.Ingress)}
}

// rate reads bits per second such as 100M or 1.5G; powers of 1000.
func rate(s string) uint64 {
	if s == "" {
		return 0
	}
	unit := 1.0
	switch s[len(s)-1] {
	case 'k':
		unit = 1e3
	case 'M':
		unit = 1e6
	case 'G':
		unit = 1e9
	}
	if unit > 1 {
		s = s[:len(s)-1]
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f < 0 || f*unit >= math.MaxUint64 {
		return 0
	}
	return uint64(math.Round(f * unit))
}
