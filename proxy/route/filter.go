package route

import (
	"math/bits"
	"strings"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// Filters of a rule or a backend, compiled. Those of the rule are done first,
// then those of the backend that was chosen. In a set, what is done to the
// request is: CORS (it may answer a preflight), Redirect (it answers all else),
// request headers, Rewrite; mirrors get the request as it then is.
type Filters struct {
	Redirect *Redirect
	CORS     *CORS
	Mirrors  []Mirror

	request  *headerChange
	response *headerChange
	rewrite  *rewrite
}

// Mirror sends a copy of a share of the requests to a cluster.
type Mirror struct {
	Cluster int // index in Config.Clusters, or Invalid: drop the copy
	share   uint64
	of      uint64
}

// Takes decides about one request; each Mirror needs a random number of its own.
func (m *Mirror) Takes(random uint64) bool {
	at, _ := bits.Mul64(random, m.of)
	return at < m.share
}

// Request changes the head of a request that goes on: headers, host and path.
// Prefix is Found.Prefix.
func (f *Filters) Request(h *message.Head, prefix int, a *Arena) {
	if f.request != nil {
		f.request.apply(h)
	}
	if f.rewrite != nil {
		f.rewrite.apply(h, prefix, a)
	}
}

// Response changes the head of an answer, ours or the back end's. CORS has its
// own (CORS.Response), which comes before it.
func (f *Filters) Response(h *message.Head) {
	if f.response != nil {
		f.response.apply(h)
	}
}

// headerChange sets, adds and removes, in this order.
type headerChange struct {
	set, add []message.Field
	remove   []message.Field // names only
}

func compileHeaders(c *l7.HeaderChange) *headerChange {
	if c == nil {
		return nil
	}
	var out headerChange
	for _, h := range c.Set {
		out.set = append(out.set, field(h.Name, h.Value))
	}
	for _, h := range c.Add {
		out.add = append(out.add, field(h.Name, h.Value))
	}
	for _, name := range c.Remove {
		out.remove = append(out.remove, field(name, ""))
	}
	return &out
}

func field(name, value string) message.Field {
	name = strings.ToLower(name)
	return message.Field{Name: []byte(name), Value: []byte(value), ID: message.Known(name)}
}

func (c *headerChange) apply(h *message.Head) {
	for i := range c.set {
		set(h, &c.set[i])
	}
	h.Fields = append(h.Fields, c.add...)
	for i := range c.remove {
		drop(h, &c.remove[i], 0)
	}
}

// set makes f the only field of its name, where the first was or at the end.
func set(h *message.Head, f *message.Field) {
	i := find(h, f, 0)
	if i < 0 {
		h.Fields = append(h.Fields, *f)
		return
	}
	h.Fields[i] = *f
	drop(h, f, i+1)
}

// drop takes out all fields of the name of f, from index i on.
func drop(h *message.Head, f *message.Field, i int) {
	i = find(h, f, i)
	if i < 0 {
		return
	}
	kept := h.Fields[:i]
	for j := i + 1; j < len(h.Fields); j++ {
		if g := &h.Fields[j]; !same(f, g) {
			kept = append(kept, *g)
		}
	}
	h.Fields = kept
}

func find(h *message.Head, f *message.Field, i int) int {
	for ; i < len(h.Fields); i++ {
		if same(f, &h.Fields[i]) {
			return i
		}
	}
	return -1
}

func same(f, g *message.Field) bool {
	return f.ID == g.ID && (f.ID != message.Other || string(f.Name) == string(g.Name))
}
