package authz

import (
	"errors"
	"slices"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/policy"
)

// Denial is what the caller of a request that is denied is told.
type Denial struct {
	Status int
	// Own: a service denied the request, and these are its own words: nothing is
	// added to its fields and Body.
	Own  bool
	Body []byte
	// Lack is what was missing or not good, when it may be that which denied it.
	Lack Lack
}

// Lack is what a rule wanted and did not get.
type Lack uint8

// Lacks.
const (
	Nothing  Lack = iota
	BadToken      // there is a token, and it is not believed
	NoKeys        // there is a token, and nothing to verify it with
	NoAnswer      // a service was asked, and gave none that counts
)

var (
	challengeName = []byte("www-authenticate")
	challenge     = "Bearer"
	badToken      = `Bearer error="invalid_token"`
)

// Denial puts what goes with a denial into the fields of an answer and says the
// rest. When no rule denies by its own word, a service that was asked and did not
// agree speaks; else a token that was wanted is asked for (RFC 6750 3).
func (c *Case) Denial(s *policy.Session, v policy.Verdict, h *message.Head) Denial {
	if !slices.ContainsFunc(s.Rules(), func(r policy.Rule) bool { return r.ID == v.Rule }) {
		for i := range c.asked {
			if a := &c.asked[i]; a.answer != policy.Yes && slices.ContainsFunc(s.Rules(), func(r policy.Rule) bool { return !r.Audit && asks(&r, a.who) }) {
				return a.denial(h)
			}
		}
	}
	return c.bears.denial(h)
}

// denial is what is told to who bears no token, or one that is not believed. Its
// reason is told only where it cannot quote what the token says.
func (b *bearing) denial(h *message.Head) Denial {
	err := b.refusal
	switch {
	case err == nil, b.believed:
		return Denial{Status: 403}
	case errors.Is(err, errNoSet), errors.Is(err, errBusy): // the fault is ours
		return Denial{Status: 503, Lack: NoKeys}
	case errors.Is(err, errNone):
		h.Add(challengeName, []byte(challenge))
		return Denial{Status: 401}
	case slices.Contains(told, err):
		h.Add(challengeName, []byte(badToken+`, error_description="`+err.Error()+`"`))
	default:
		h.Add(challengeName, []byte(badToken))
	}
	return Denial{Status: 401, Lack: BadToken}
}

func (a *asked) denial(h *message.Head) Denial {
	if a.said == nil {
		return Denial{Status: orForbidden(int(a.who.Status)), Lack: NoAnswer}
	}
	apply(h, a.said.fields)
	return Denial{Status: orForbidden(a.said.status), Own: true, Body: a.said.body}
}

// orForbidden is a status that ends a request, or 403.
func orForbidden(status int) int {
	if status < 200 || status > 599 {
		return 403
	}
	return status
}
