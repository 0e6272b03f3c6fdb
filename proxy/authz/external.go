package authz

import (
	"errors"
	"slices"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/policy"
)

// asked is what came of asking one service about the request.
type asked struct {
	who    *policy.External
	answer policy.Answer
	said   *answer // nil: it did not answer
	err    error   // why not
	done   bool    // the request is changed as it wants
}

var errFailed = errors.New("the service says that it failed")

// External implements policy.Witness.
func (c *Case) External(e *policy.External) policy.Answer {
	for i := range c.asked {
		if *c.asked[i].who == *e {
			return c.asked[i].answer
		}
	}
	a := asked{who: e}
	a.said, a.err = c.ask(e)
	switch {
	case a.err != nil && e.Open:
		a.answer = policy.Yes
	case a.err != nil:
		a.answer = policy.Unknown
	case a.said.agrees:
		a.answer = policy.Yes
	}
	c.asked = append(c.asked, a)
	return a.answer
}

// ask asks a service. It waits.
func (c *Case) ask(e *policy.External) (*answer, error) {
	var err error
	if c.question, err = c.appendQuestion(c.question); err != nil {
		return nil, err
	}
	b, err := c.Holder.Ask(e, c.question)
	if err != nil {
		return nil, err
	}
	said, err := readAnswer(b)
	if err == nil && said.failed {
		err = errFailed
	}
	if err != nil {
		return nil, err
	}
	return said, nil
}

// Change makes the changes to the request that the services want which agreed
// to it by the rule that decided.
func (c *Case) Change(s *policy.Session, v policy.Verdict) {
	for i := range c.asked {
		if a := &c.asked[i]; a.said != nil && a.answer == policy.Yes && !a.done && decided(s, v, a.who) {
			a.done = true
			for _, name := range a.said.remove {
				if mayChange(name) {
					c.Head.Remove(name)
				}
			}
			apply(c.Head, a.said.fields)
		}
	}
}

// ChangeAnswer does the same to the endpoint's answer.
func (c *Case) ChangeAnswer(h *message.Head, s *policy.Session, v policy.Verdict) {
	for i := range c.asked {
		if a := &c.asked[i]; a.said != nil && a.answer == policy.Yes && decided(s, v, a.who) {
			apply(h, a.said.onAnswer)
		}
	}
}

// decided says whether the rule that decided asks the service.
func decided(s *policy.Session, v policy.Verdict, e *policy.External) bool {
	return slices.ContainsFunc(s.Rules(), func(r policy.Rule) bool { return r.ID == v.Rule && asks(&r, e) })
}

func asks(r *policy.Rule, e *policy.External) bool {
	return slices.ContainsFunc(r.Requests, func(m policy.RequestMatch) bool { return m.External != nil && *m.External == *e })
}

// apply makes changes to the fields of h. Of several that overwrite one field the
// first replaces what there was, the others stand beside it: so cookies are set.
func apply(h *message.Head, changes []change) {
	for i, c := range changes {
		_, there := h.Lookup(c.name)
		again := false
		for j := range changes[:i] {
			again = again || changes[j].name == c.name
		}
		switch {
		case c.action == actionIfAbsent && there, c.action == actionOverwriteExists && !there:
			continue
		case (c.action == actionOverwrite || c.action == actionOverwriteExists) && !again:
			h.Remove(c.name)
		}
		h.Add([]byte(c.name), []byte(c.value))
	}
}
