package control

import (
	"errors"
	"fmt"
	"io/fs"
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

// existingCA opens the CA of a directory in which moired ran before.
func existingCA(dir string) (*identity.CA, error) {
	ca, err := identity.OpenCA(identity.Config{Dir: identityDir(dir)})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no control plane in %s; start moired once, or say where it is with --dir", dir)
	}
	return ca, err
}

// NewToken makes a token with which nodes join; life 0 means 24 hours. moired
// need not run, and sees the token at once when it does.
func NewToken(dir string, life time.Duration, once bool, note string) (string, error) {
	ca, err := existingCA(dir)
	if err != nil {
		return "", err
	}
	return ca.NewToken(identity.TokenSpec{Life: life, Once: once, Note: note})
}

// Tokens lists the tokens that are good, the oldest first.
func Tokens(dir string) ([]Token, error) {
	ca, err := existingCA(dir)
	if err != nil {
		return nil, err
	}
	all, err := ca.Tokens()
	out := make([]Token, len(all))
	for i, t := range all {
		out[i] = Token{ID: t.ID, Created: t.Created, Expires: t.Expires, Once: t.Once, Note: t.Note}
	}
	return out, err
}

// RevokeToken ends a token. Nodes that joined with it stay.
func RevokeToken(dir, id string) error {
	ca, err := existingCA(dir)
	if err != nil {
		return err
	}
	return ca.RevokeToken(id)
}

// CAHash is sha256:<hex> of the root that nodes must expect.
func CAHash(dir string) (string, error) {
	ca, err := existingCA(dir)
	if err != nil {
		return "", err
	}
	return ca.CAHash(), nil
}
