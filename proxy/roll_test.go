package proxy

import (
	"math/rand/v2"
	"testing"
)

// TestRoll: whoever is there during a whole round is visited in it, whatever
// others do meanwhile.
func TestRoll(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		w := &worker{}
		var there []*down1
		enter := func() {
			d := &down1{}
			w.conns.enter(d)
			there = append(there, d)
		}
		for range dice.IntN(30) {
			enter()
		}
		stay := map[conn]int{}
		for _, d := range there[:dice.IntN(len(there)+1)] {
			stay[d] = 0
		}
		goers := there[len(stay):]
		w.conns.all(func(c conn) {
			if _, ok := stay[c]; ok {
				stay[c]++
			}
			for range dice.IntN(3) {
				if len(goers) > 0 && dice.IntN(2) == 0 {
					w.conns.leave(goers[0])
					w.conns.leave(goers[0]) // once more is nothing
					goers = goers[1:]
				} else if len(there) < 100 {
					enter()
				}
			}
		})
		for c, visits := range stay {
			if visits == 0 {
				t.Fatal("one was left out")
			}
			if i := *c.place(); i == 0 || w.conns[i-1] != c {
				t.Fatal("one is not where it thinks")
			}
		}
	}
}
