package svid

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"moire.dev/moire/snapshot/wire"
)

// maxTokens bounds the JWT-SVIDs that are remembered.
const maxTokens = 4096

// token is a JWT-SVID.
type token struct {
	text        string
	from, until time.Time
}

type tokens struct {
	mu sync.Mutex
	by map[string]token // by identity and audiences
}

// Token returns a JWT-SVID of an identity that is attached here: one that it was
// given before, until half of its life is over, or as long as it lives when no
// other can be had.
func (s *Store) Token(ctx context.Context, id string, audiences []string) (string, error) {
	s.mu.Lock()
	_, here := s.held[id]
	s.mu.Unlock()
	if !here {
		return "", fmt.Errorf("%s: %w", id, ErrNotHere)
	}
	audiences = slices.Compact(slices.Sorted(slices.Values(audiences)))
	key := id + "\x00" + strings.Join(audiences, "\x00")
	now := s.now()
	s.tokens.mu.Lock()
	have := s.tokens.by[key]
	s.tokens.mu.Unlock()
	if now.Before(have.from.Add(have.until.Sub(have.from) / 2)) {
		return have.text, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := s.cfg.Authority.Issue(ctx, &wire.IssueRequest{Tokens: []*wire.TokenRequest{{Spiffe: id, Audiences: audiences}}})
	switch {
	case err == nil && len(out.GetTokens()) != 1:
		err = errors.New("not as many answers as questions")
	case err == nil && out.GetTokens()[0].GetError() != "":
		return "", fmt.Errorf("%s gets no token: %s", id, out.GetTokens()[0].GetError())
	}
	if err != nil {
		if now.Before(have.until) {
			return have.text, nil
		}
		return "", fmt.Errorf("%s gets no token: %w", id, err)
	}
	got := out.GetTokens()[0]
	next := token{text: got.GetToken(), from: time.Unix(got.GetFrom(), 0), until: time.Unix(got.GetUntil(), 0)}
	s.tokens.remember(key, next, now)
	return next.text, nil
}

func (t *tokens) remember(key string, next token, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.by) >= maxTokens {
		maps.DeleteFunc(t.by, func(_ string, o token) bool { return !now.Before(o.until) })
		if len(t.by) >= maxTokens {
			clear(t.by)
		}
	}
	t.by[key] = next
}
