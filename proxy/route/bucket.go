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
	path    *pattern // of an HTTPRoute
	service *pattern // of a GRPCRoute
	call    *pattern
	order   order
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

// crowd is how many candidates a bucket tries one after the other. A bucket
// with more is indexed by what its candidates want exactly.
const crowd = 8

// bucket holds the candidates for one key, the best first.
type bucket struct {
	kind   uint8
	owner  int32 // the level it belongs to
	key    string
	list   []candidate
	tuples []tuple
}

// tuple indexes the candidates that want exact values of the same names: one
// look-up finds all of them that a request can meet.
type tuple struct {
	best    int32 // index of its first candidate in the list
	method  bool
	headers []*condition
	query   []*condition
	table   index
	groups  [][]int32 // indices into the list, rising
}

// settle sorts a bucket that is complete and indexes a crowded one.
func (b *bucket) settle(crowd int) {
	slices.SortStableFunc(b.list, func(x, y candidate) int { return x.order.compare(&y.order) })
	b.list = slices.Clip(b.list)
	if len(b.list) <= crowd {
		return
	}
	at := map[string]int{}
	for i := range b.list {
		c := &b.list[i]
		signature := c.signature()
		n, known := at[signature]
		if !known {
			n = len(b.tuples)
			at[signature] = n
			b.tuples = append(b.tuples, newTuple(c, i))
		}
		b.tuples[n].add(c, i)
	}
	for i := range b.tuples {
		b.tuples[i].table.build()
	}
}

func newTuple(c *candidate, i int) tuple {
	t := tuple{best: int32(i), method: c.method != ""}
	t.headers, t.query = exact(c.headers), exact(c.query)
	return t
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
	if n := t.table.only(h); n >= 0 {
		t.groups[n] = append(t.groups[n], int32(i))
		return
	}
	t.table.put(h, int32(len(t.groups)))
	t.groups = append(t.groups, []int32{int32(i)})
}

// find is the first candidate that a request meets; nil: none.
func (b *bucket) find(r *request) *candidate {
	if b.tuples == nil {
		for i := range b.list {
			if c := &b.list[i]; c.met(r) {
				return c
			}
		}
		return nil
	}
	best := int32(len(b.list))
	for i := range b.tuples {
		t := &b.tuples[i]
		if t.best >= best {
			break // tuples are sorted by their best
		}
		h, ok := t.hash(r)
		if !ok {
			continue
		}
		n := t.table.only(h)
		if n < 0 {
			continue
		}
		for _, k := range t.groups[n] {
			if k >= best {
				break
			}
			if b.list[k].met(r) {
				best = k
				break
			}
		}
	}
	if int(best) == len(b.list) {
		return nil
	}
	return &b.list[best]
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
