package authz

import "crypto/sha256"

// Bounds of what a worker remembers.
const (
	maxGood = 4 << 20 // bytes of tokens that were verified
	maxBad  = 1024    // others
)

// Memory remembers what became of tokens, for one worker. What it knows of a
// token it knows by the hash of all of it and by the keys that were to verify it:
// other keys, and it is verified anew. The zero Memory is ready.
type Memory struct {
	good map[mark]*token
	size int // of good, in bytes, about
	// bad ones by themselves, so that nobody who has none can push out others.
	bad map[mark]stranger
}

// mark tells a token and the keys that verified it.
type mark struct {
	sum [sha256.Size]byte
	by  *content
}

// stranger is a token that was not verified.
type stranger struct {
	// issuer by its own word; "": it has none, or nobody can read it.
	issuer string
	// why it is not believed; nil: it was not looked at, because another issuer
	// was wanted.
	why error
}

// refusal is why the token is not one of an issuer; nil: that is not known.
func (s stranger) refusal(issuer string) error {
	switch {
	case s.why != nil && (s.issuer == issuer || s.issuer == ""):
		return s.why
	case s.issuer != issuer:
		return errIssuer
	}
	return nil
}

// keep remembers a token that was verified.
func (m *Memory) keep(k mark, t *token) {
	if m.good == nil {
		m.good = map[mark]*token{}
	}
	if t.size > maxGood/16 {
		return
	}
	for old := range m.good { // any: to know the oldest would cost more than it is worth
		if m.size+t.size <= maxGood {
			break
		}
		m.forget(old)
	}
	m.forget(k)
	m.good[k] = t
	m.size += t.size
}

func (m *Memory) forget(k mark) {
	if t := m.good[k]; t != nil {
		m.size -= t.size
		delete(m.good, k)
	}
}

// reject remembers a token that will not be verified by these keys.
func (m *Memory) reject(k mark, s stranger) {
	if m.bad == nil {
		m.bad = map[mark]stranger{}
	}
	for old := range m.bad {
		if len(m.bad) < maxBad {
			break
		}
		delete(m.bad, old)
	}
	m.bad[k] = s
}
