package compile

import (
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// index finds the identities of a project by label. It is made when first
// asked for; the project itself is never changed.
type index struct {
	byLabel map[snapshot.Label][]*who
	asked   map[string]map[policy.Identity]bool
}

// maxAsked bounds what is remembered of selectors.
const maxAsked = 8192

// matching are the numbers of the identities that a selector selects; nil
// selects nobody.
func (p *project) matching(s labels.Selector) map[policy.Identity]bool {
	if s == nil {
		return nil
	}
	if p.index == nil {
		p.index = &index{byLabel: map[snapshot.Label][]*who{}, asked: map[string]map[policy.Identity]bool{}}
		for _, w := range p.who {
			for _, l := range w.row.Labels {
				p.index.byLabel[l] = append(p.index.byLabel[l], w)
			}
		}
	}
	text := s.String()
	if out, known := p.index.asked[text]; known {
		return out
	}
	if len(p.index.asked) >= maxAsked {
		clear(p.index.asked)
	}
	out := map[policy.Identity]bool{}
	for _, w := range p.index.candidates(p.who, s) {
		if s.Matches(w.labels) {
			out[w.row.Number] = true
		}
	}
	p.index.asked[text] = out
	return out
}

// candidates are those among whom the selected ones are: few, where one label
// is asked for by value.
func (i *index) candidates(all []*who, s labels.Selector) []*who {
	rs, selectable := s.Requirements()
	if !selectable {
		return nil
	}
	for _, r := range rs {
		if op := r.Operator(); (op == selection.Equals || op == selection.DoubleEquals || op == selection.In) && len(r.Values()) == 1 {
			return i.byLabel[snapshot.Label{Key: r.Key(), Value: r.Values().List()[0]}]
		}
	}
	return all
}
