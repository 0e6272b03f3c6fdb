package control

import (
	"time"

	"moire.dev/moire/identity"
)

// Token is what is known of a join token; its secret is not.
type Token struct {
	ID               string
	Created, Expires time.Time
	Once             bool
	Note             string
}

// NewToken makes a token with which nodes join; life 0 means 24 hours. moired
// need not run, and sees the token at once when it does.
func NewToken(cfg Config, life time.Duration, once bool, note string) (string, error) {
	ca, done, err := cfg.existingCA()
	if err != nil {
		return "", err
	}
	defer done()
	return ca.NewToken(identity.TokenSpec{Life: life, Once: once, Note: note})
}

// Tokens lists the tokens that are good, the oldest first.
func Tokens(cfg Config) ([]Token, error) {
	ca, done, err := cfg.existingCA()
	if err != nil {
		return nil, err
	}
	defer done()
	all, err := ca.Tokens()
	out := make([]Token, len(all))
	for i, t := range all {
		out[i] = Token{ID: t.ID, Created: t.Created, Expires: t.Expires, Once: t.Once, Note: t.Note}
	}
	return out, err
}

// RevokeToken ends a token. Nodes that joined with it stay.
func RevokeToken(cfg Config, id string) error {
	ca, done, err := cfg.existingCA()
	if err != nil {
		return err
	}
	defer done()
	return ca.RevokeToken(id)
}

// CAHash is sha256:<hex> of the root that nodes must expect.
func CAHash(cfg Config) (string, error) {
	ca, done, err := cfg.existingCA()
	if err != nil {
		return "", err
	}
	defer done()
	return ca.CAHash(), nil
}
