package identity

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

const (
	// DefaultTokenLife is how long a token is good for unless said otherwise.
	DefaultTokenLife = 24 * time.Hour
	// maxTokens bounds the tokens that exist at one time.
	maxTokens = 1000
	// maxNote bounds a note in bytes.
	maxNote = 256
	// keepEnded is how long a token is remembered after its end, to tell whoever
	// still uses it.
	keepEnded = 24 * time.Hour

	idBytes     = 5  // 8 characters
	secretBytes = 20 // 32 characters, 160 bits
)

// ErrToken is what every refusal of a token wraps.
var ErrToken = errors.New("the token is not valid; make a new one on the control plane")

// encoding makes tokens of lower case letters and digits.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// TokenSpec says what a new token is good for. The zero value is good for any
// number of nodes for DefaultTokenLife.
type TokenSpec struct {
	// Life; 0 means DefaultTokenLife.
	Life time.Duration
	// Once: the token ends with its first use.
	Once bool
	// Note for people, at most 256 bytes.
	Note string
}

// Token is what is known of a token; the secret is not.
type Token struct {
	ID      string    `json:"id"`
	Hash    []byte    `json:"hash"` // SHA-256 of the secret
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Once    bool      `json:"once,omitempty"`
	Note    string    `json:"note,omitempty"`
}

// NewToken makes a token: <id>.<secret>. It is shown once and only its hash is
// kept.
func (ca *CA) NewToken(spec TokenSpec) (string, error) {
	life := cmp.Or(spec.Life, DefaultTokenLife)
	if life < 0 {
		return "", fmt.Errorf("a token cannot live for %s; say a positive time", life)
	}
	if len(spec.Note) > maxNote {
		return "", fmt.Errorf("the note has %d bytes; at most %d are allowed", len(spec.Note), maxNote)
	}
	raw := make([]byte, idBytes+secretBytes)
	rand.Read(raw) // never fails
	id, secret := encoding.EncodeToString(raw[:idBytes]), encoding.EncodeToString(raw[idBytes:])
	now := ca.cfg.Now()
	hash := sha256.Sum256([]byte(secret))
	err := ca.changeTokens(func(all []Token) ([]Token, error) {
		if len(all) >= maxTokens {
			return nil, fmt.Errorf("there are %d tokens already; revoke some", len(all))
		}
		if slices.ContainsFunc(all, func(t Token) bool { return t.ID == id }) {
			return nil, errors.New("the random id is taken; try again")
		}
		return append(all, Token{ID: id, Hash: hash[:], Created: now, Expires: now.Add(life), Once: spec.Once, Note: spec.Note}), nil
	})
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	return id + "." + secret, nil
}

// CheckToken returns nil when the token is good, and uses it up when it is
// good only once. Every other case wraps ErrToken or is a failure to read.
func (ca *CA) CheckToken(token string) error {
	all, _, err := ca.readTokens()
	if err != nil {
		return err
	}
	found, err := ca.find(all, token)
	if err != nil || !all[found].Once {
		return err
	}
	// It is used up: only one may do that.
	return ca.changeTokens(func(all []Token) ([]Token, error) {
		found, err := ca.find(all, token)
		if err != nil {
			return nil, err
		}
		return slices.Delete(all, found, found+1), nil
	})
}

// find returns which one is meant, if it is good.
func (ca *CA) find(all []Token, token string) (int, error) {
	id, secret, _ := strings.Cut(token, ".")
	hash := sha256.Sum256([]byte(secret))
	// Every token is compared, so that time tells nothing about which exist.
	found := -1
	for i, t := range all {
		if subtle.ConstantTimeCompare([]byte(t.ID), []byte(id))&subtle.ConstantTimeCompare(t.Hash, hash[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return 0, ErrToken
	}
	if !ca.cfg.Now().Before(all[found].Expires) {
		return 0, fmt.Errorf("token %s ended at %s: %w", id, all[found].Expires.UTC().Format(time.RFC3339), ErrToken)
	}
	return found, nil
}

// Tokens lists the tokens that are good, the oldest first, without hashes.
func (ca *CA) Tokens() ([]Token, error) {
	all, _, err := ca.readTokens()
	if err != nil {
		return nil, err
	}
	all = since(ca.cfg.Now(), all)
	for i := range all {
		all[i].Hash = nil
	}
	return all, nil
}

// RevokeToken ends the token with the id before its time. Certificates that it
// brought stay good.
func (ca *CA) RevokeToken(id string) error {
	return ca.changeTokens(func(all []Token) ([]Token, error) {
		rest := slices.DeleteFunc(slices.Clone(all), func(t Token) bool { return t.ID == id })
		if len(rest) == len(all) {
			return nil, fmt.Errorf("there is no token %q that could be revoked", id)
		}
		return rest, nil
	})
}

// since leaves out the tokens that ended before the moment.
func since(moment time.Time, all []Token) []Token {
	return slices.DeleteFunc(all, func(t Token) bool { return !moment.Before(t.Expires) })
}

// changeTokens is tried again when another process was first.
func (ca *CA) changeTokens(change func([]Token) ([]Token, error)) error {
	for range maxTries {
		all, revision, err := ca.readTokens()
		if err != nil {
			return err
		}
		all, err = change(since(ca.cfg.Now().Add(-keepEnded), all))
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		ok, err := ca.cfg.Vault.Write(map[string]int64{tokenFile: revision}, map[string][]byte{tokenFile: append(b, '\n')})
		if ok || err != nil {
			return err
		}
	}
	return errors.New("the tokens keep changing; try again")
}

func (ca *CA) readTokens() (all []Token, revision int64, err error) {
	b, revision, err := ca.cfg.Vault.Read(tokenFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, 0, fmt.Errorf("%s is damaged: %w; remove it and make new tokens", ca.cfg.Vault.Place(tokenFile), err)
	}
	return all, revision, nil
}
