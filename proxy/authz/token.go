package authz

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const (
	// maxToken bytes of a token are looked at.
	maxToken = 16 << 10
	// maxIssuer bytes has the longest issuer that a Policy can name.
	maxIssuer = 1024
	// leeway is how far the clock of an issuer may be from ours, in seconds.
	leeway = 30
)

// token is what a token says that was verified. It never changes.
type token struct {
	claims
	issuer      string
	audiences   []string
	from, until int64 // seconds since 1970
	size        int   // bytes of memory, about
}

// Why a token is not believed.
var (
	errTooLarge  = errors.New("the token is too large")
	errCritical  = errors.New("the token has critical header parameters, of which none is known")
	errType      = errors.New("the token is of a type that says nothing about who calls")
	errNoKey     = errors.New("no key of the set may have signed the token")
	errSignature = errors.New("the signature is not of a key of the set")
	errNoEnd     = errors.New("the token has no time at which it ends (exp)")
	errEnded     = errors.New("the token has ended")
	errEarly     = errors.New("the token is not valid yet")
	errIssuer    = errors.New("the token is of another issuer")
)

// told are the reasons that a caller is told.
var told = []error{errTooLarge, errCritical, errType, errNoKey, errSignature, errNoEnd, errEnded, errEarly, errIssuer, errSeveral}

// verify reads a token in compact form and verifies it: first what costs
// little, then its signature. Of a token that can be read but is not believed it
// returns what it says, too.
func (c *content) verify(text, issuer string, now int64) (t *token, err error) {
	defer survive(&err)
	if len(text) > maxToken {
		return nil, errTooLarge
	}
	jws, err := jose.ParseSignedCompact(text, accepted)
	if err != nil {
		return nil, err
	}
	h := &jws.Signatures[0].Protected
	if _, critical := h.ExtraHeaders["crit"]; critical {
		return nil, errCritical
	}
	if !isToken(h.ExtraHeaders[jose.HeaderType]) {
		return nil, errType
	}
	if t, err = readToken(jws.UnsafePayloadWithoutVerification()); err != nil {
		return nil, err
	}
	if t.issuer != issuer {
		return t, errIssuer
	}
	if err := t.inTime(now); err != nil {
		return t, err
	}
	keys := c.fitting(h.KeyID, jose.SignatureAlgorithm(h.Algorithm))
	if len(keys) == 0 {
		return t, errNoKey
	}
	for i := range keys {
		if _, err := jws.Verify(keys[i].public); err == nil {
			return t, nil
		}
	}
	return t, errSignature
}

// isToken says whether the type in a header is one of access and identity
// tokens. Others that an issuer signs with the same keys (logout tokens, security
// events, …) are no permission to call (RFC 8725 3.11).
func isToken(typ any) bool {
	if typ == nil {
		return true
	}
	text, is := typ.(string)
	if !is {
		return false
	}
	switch strings.TrimPrefix(strings.ToLower(text), "application/") {
	case "", "jwt", "at+jwt", "jose":
		return true
	}
	return false
}

// readToken reads what a token says.
func readToken(payload []byte) (*token, error) {
	all, err := readClaims(payload)
	if err != nil {
		return nil, err
	}
	t := &token{claims: all, audiences: all["aud"], size: all.size()}
	if iss := all["iss"]; len(iss) == 1 {
		t.issuer = iss[0]
	}
	if len(t.issuer) > maxIssuer { // it is remembered, whoever wrote it
		return nil, errTooLarge
	}
	end, ends, err := t.date("exp")
	if err != nil {
		return nil, err
	}
	if !ends {
		return nil, errNoEnd
	}
	t.until = end
	for _, name := range []string{"nbf", "iat"} {
		at, _, err := t.date(name)
		if err != nil {
			return nil, err
		}
		t.from = max(t.from, at)
	}
	return t, nil
}

// date is a NumericDate (RFC 7519): seconds since 1970, perhaps with a fraction.
func (t *token) date(name string) (seconds int64, is bool, err error) {
	values, is := t.claims[name]
	if !is {
		return 0, false, nil
	}
	var f float64
	if len(values) != 1 || json.Unmarshal([]byte(values[0]), &f) != nil || f < 0 || f > 1<<53 {
		return 0, false, fmt.Errorf("%s is not a time", name)
	}
	return int64(math.Floor(f)), true, nil
}

// inTime says whether the token is valid now.
func (t *token) inTime(now int64) error {
	switch {
	case now >= t.until+leeway:
		return errEnded
	case now < t.from-leeway:
		return errEarly
	}
	return nil
}

// isFor says whether one of the audiences is wanted; none wanted: any.
func (t *token) isFor(wanted []string) bool {
	return len(wanted) == 0 || slices.ContainsFunc(wanted, func(a string) bool { return slices.Contains(t.audiences, a) })
}
