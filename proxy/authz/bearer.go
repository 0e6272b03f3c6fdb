package authz

import (
	"bytes"
	"crypto/sha256"
	"errors"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/policy"
)

// Why there is no token that could be asked about.
var (
	errNone    = errors.New("there is no bearer token")
	errSeveral = errors.New("there is more than one Authorization")
	errNoSet   = errors.New("the keys of the issuer are not at hand")
	errBusy    = errors.New("too many tokens are being verified")
)

// bearing is what a Case knows of the token that its request bears.
type bearing struct {
	looked bool
	text   []byte // in the head
	why    error  // there is none
	hashed bool
	sum    [sha256.Size]byte
	// last is what was asked for last, and by whom it was verified: the rules of a
	// Set mostly ask for one.
	last *token
	by   *content
	// refusal is why a token that was wanted is not there; nil: none was wanted.
	refusal error
	// believed: a token that was wanted is there, whatever it says.
	believed bool
}

var bearerScheme = []byte("bearer ")

// bearer finds the token of a request: as RFC 6750 2.1 has it, and no other way.
func bearer(h *message.Head) ([]byte, error) {
	var found []byte
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID == message.Authorization {
			if found != nil {
				return nil, errSeveral
			}
			found = f.Value
		}
	}
	n := len(bearerScheme)
	if len(found) < n || !bytes.EqualFold(found[:n], bearerScheme) {
		return nil, errNone
	}
	text := bytes.TrimLeft(found[n:], " ")
	if len(text) == 0 {
		return nil, errNone
	}
	return text, nil
}

// Token implements policy.Witness.
func (c *Case) Token(want *policy.Token) policy.Answer {
	t, err := c.token(want)
	if err == nil {
		c.bears.believed = true
		if t.isFor(want.Audiences) {
			return policy.Yes
		}
		return policy.No
	}
	if c.bears.refusal == nil || errors.Is(c.bears.refusal, errIssuer) {
		c.bears.refusal = err
	}
	if errors.Is(err, errNone) || errors.Is(err, errIssuer) {
		return policy.No
	}
	return policy.Unknown
}

// Claim implements policy.Witness.
func (c *Case) Claim(want *policy.Token, name string) []string {
	t, err := c.token(want)
	if err != nil {
		return nil
	}
	return t.claims[name]
}

// token is the verified token of the request, when it is of the issuer.
func (c *Case) token(want *policy.Token) (*token, error) {
	b := &c.bears
	if !b.looked {
		b.looked = true
		b.text, b.why = bearer(c.Head)
	}
	if b.why != nil {
		return nil, b.why
	}
	by, ok := c.Keys.find(want.Keys, c.Now)
	if !ok {
		return nil, errNoSet
	}
	if b.last == nil || b.by != by {
		t, err := c.verified(by, want.Issuer)
		if err != nil {
			return nil, err
		}
		b.last, b.by = t, by
	}
	if b.last.issuer != want.Issuer {
		return nil, errIssuer
	}
	return b.last, b.last.inTime(c.Now)
}

// verified is the token as its keys verified it, before or now.
func (c *Case) verified(by *content, issuer string) (*token, error) {
	b, m := &c.bears, c.Memory
	if len(b.text) > maxToken {
		return nil, errTooLarge
	}
	if !b.hashed {
		b.sum, b.hashed = sha256.Sum256(b.text), true
	}
	k := mark{b.sum, by}
	if t := m.good[k]; t != nil {
		return t, nil
	}
	if s, known := m.bad[k]; known {
		if err := s.refusal(issuer); err != nil {
			return nil, err
		}
	}
	return c.verify(k, issuer)
}

// verify has the token verified apart, and remembers what came of it.
func (c *Case) verify(k mark, issuer string) (*token, error) {
	text, now := string(c.bears.text), c.Now
	var t *token
	var err error
	if !c.Holder.Apart(k.by, func() { t, err = k.by.verify(text, issuer, now) }) {
		return nil, errBusy
	}
	switch {
	case err == nil:
		c.Memory.keep(k, t)
		return t, nil
	case t == nil:
		c.Memory.reject(k, stranger{why: err})
	case errors.Is(err, errIssuer):
		c.Memory.reject(k, stranger{issuer: t.issuer})
	case !errors.Is(err, errEarly): // that may be good later
		c.Memory.reject(k, stranger{t.issuer, err})
	}
	return nil, err
}
