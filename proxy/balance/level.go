package balance

// health of one level: how many of its endpoints could be chosen, of how many.
type health struct{ usable, all int }

// share is what a level gets.
type share struct {
	load  int // percent
	panic bool
}

// split gives each level its load in percent, as Envoy does for priorities:
// health is usable/all times the overprovisioning factor, at most 100; levels
// are filled in order; when all together have less than 100, each gets its part
// of what there is, and a level with fewer than panicAt percent usable endpoints
// uses all of them. With nobody usable the first level gets all, in panic,
// unless panicAt is 0: then nobody gets anything.
func split(levels []health, over, panicAt int, out []share) {
	total := 0
	for i, l := range levels {
		out[i] = share{}
		if l.all > 0 {
			out[i].load = min(100, over*l.usable/l.all)
		}
		total += out[i].load
	}
	total = min(100, total)
	if total == 0 {
		if panicAt > 0 && len(out) > 0 {
			out[0] = share{100, true}
		}
		return
	}
	left, first := 100, -1
	for i := range out {
		if out[i].load > 0 && first < 0 {
			first = i
		}
		out[i].load = min(left, out[i].load*100/total)
		left -= out[i].load
		out[i].panic = total < 100 && levels[i].usable*100 < panicAt*levels[i].all
	}
	// What rounding left over.
	out[first].load += left
}
