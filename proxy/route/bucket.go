package route

import (
	"cmp"
	"regexp"
	"slices"

	"moire.dev/moire/proxy/message"
)

// candidate is one match of one rule: the path is met when its bucket was found
// (but for a regular expression), the rest is looked at here.
type candidate struct {
	rule   *Rule
	method string
	conditions
	*patterns // nil: none
}

// patterns that the path or the call has to match; nil: no condition.
type patterns struct {
	path    *pattern // of an HTTPRoute
	service *pattern // of a GRPCRoute
	call    *pattern
}

// conditions on headers and query parameters.
type conditions struct {
	headers []condition
	query   []condition
}

// condition is met by one value.
type condition struct {
	id      message.ID
	name    string // a header's in lower case
	value   string
	pattern *pattern // nil: value, exactly
}

// pattern is a regular expression that has to match the whole of a value.
type pattern struct {
	text   string
	start  string // what every value that matches begins with
	regexp *regexp.Regexp
}

func (p *pattern) match(b []byte) bool {
	return len(b) >= len(p.start) && string(b[:len(p.start)]) == p.start && p.regexp.Match(b)
}

// compilePattern reads an expression in RE2 syntax.
func compilePattern(text string) (*pattern, error) {
	free, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	start, _ := free.LiteralPrefix()
	whole, err := regexp.Compile("^(?:" + text + ")$")
	if err != nil {
		return nil, err
	}
	return &pattern{text: text, start: start, regexp: whole}, nil
}

// crowd is how many candidates a bucket tries one after the other. A bucket
// with more is indexed by what its candidates want exactly.
const crowd = 8

// bucket holds the candidates for one key, the best first.
type bucket struct {
	key   string
	owner int32 // the level it belongs to
	first int32 // in Table.candidates
	count int32
	crowd int32 // in Table.crowds; -1: look at all
	kind  uint8
}

// crowded is the index of a bucket with many candidates.
type crowded []tuple

// tuple indexes the candidates that want exact values of the same names: one
// look-up finds all of them that a request can meet.
type tuple struct {
	best    int32 // index of its first candidate in the bucket
	method  bool
	headers []*condition
	query   []*condition
	table   index
	groups  [][]int32 // indices into the bucket, rising
	known   map[uint64]int32
}

func newCrowd(list []candidate) crowded {
	var out crowded
	at := map[string]int{}
	for i := range list {
		c := &list[i]
		signature := c.signature()
		n, known := at[signature]
		if !known {
			n = len(out)
			at[signature] = n
			out = append(out, tuple{best: int32(i), method: c.method != "", headers: exact(c.headers), query: exact(c.query), known: map[uint64]int32{}})
		}
		out[n].add(c, i)
	}
	for i := range out {
		out[i].table.build()
		out[i].known = nil
	}
	return out
}

// exact are the conditions with an exact value, by name.
func exact(all []condition) (out []*condition) {
	for i := range all {
		if all[i].pattern == nil {
			out = append(out, &all[i])
		}
	}
	slices.SortFunc(out, func(x, y *condition) int { return cmp.Compare(x.name, y.name) })
	return out
}

func (c *candidate) signature() string {
	s := "-"
	if c.method != "" {
		s = "+"
	}
	for _, h := range exact(c.headers) {
		s += "\n" + h.name
	}
	s += "\n?"
	for _, q := range exact(c.query) {
		s += "\n" + q.name
	}
	return s
}

func (t *tuple) add(c *candidate, i int) {
	h := element(seed, []byte(c.method))
	for _, e := range exact(c.headers) {
		h = element(h, []byte(e.value))
	}
	for _, e := range exact(c.query) {
		h = element(h, []byte(e.value))
	}
	n, known := t.known[h]
	if !known {
		n = int32(len(t.groups))
		t.known[h] = n
		t.table.put(h, n)
		t.groups = append(t.groups, nil)
	}
	t.groups[n] = append(t.groups[n], int32(i))
}

// find is the first candidate of a bucket that a request meets; nil: none.
func (t *Table) find(b *bucket, r *request) *candidate {
	list := t.candidates[b.first : b.first+b.count]
	if b.crowd >= 0 {
		return t.crowds[b.crowd].find(list, r)
	}
	for i := range list {
		if c := &list[i]; c.met(r) {
			return c
		}
	}
	return nil
}

func (all crowded) find(list []candidate, r *request) *candidate {
	best := int32(len(list))
	for i := range all {
		t := &all[i]
		if t.best >= best {
			break // they are sorted by their best
		}
		if h, ok := t.hash(r); ok {
			best = t.better(list, r, h, best)
		}
	}
	if int(best) == len(list) {
		return nil
	}
	return &list[best]
}

// better is the first candidate before best that a request meets, or best.
func (t *tuple) better(list []candidate, r *request, hash uint64, best int32) int32 {
	for at := uint32(hash); ; {
		var n int32
		if n, at = t.table.next(at, hash); n < 0 {
			return best
		}
		for _, k := range t.groups[n] {
			if k >= best {
				break
			}
			if list[k].met(r) {
				best = k
				break
			}
		}
	}
}

// hash is the key of a request in t; false: it lacks something.
func (t *tuple) hash(r *request) (uint64, bool) {
	h := element(seed, nil)
	if t.method {
		h = element(seed, r.method)
	}
	for _, c := range t.headers {
		v, ok := r.header(c.id, c.name)
		if !ok {
			return 0, false
		}
		h = element(h, v)
	}
	for _, c := range t.query {
		v, ok := r.parameter(c.name)
		if !ok {
			return 0, false
		}
		h = element(h, v)
	}
	return h, true
}
