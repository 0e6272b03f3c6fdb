package identity

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Orders for a rotation that is going on.
const (
	// Hold does not switch to the next root while it stands.
	Hold = "hold"
	// Hurry switches without waiting for nodes that are away.
	Hurry = "hurry"
	// Drop is Hurry, and the former root goes at once: for one whose key was
	// stolen.
	Drop = "drop"
)

// Wanted is what a Domain wants of its CA.
type Wanted struct {
	Domain, UID, TrustDomain string
	// Life of X.509-SVIDs.
	Life time.Duration
	// Rotate asks for another root whenever it is another text.
	Rotate string
	// Order: Hold, Hurry, Drop, or nothing.
	Order string
}

// Lacking names the nodes that do not trust all of the roots yet.
type Lacking func(roots [][]byte) []string

// Keep brings the CA of a Domain one step further: makes it, and goes through
// the phases of a rotation, for which it must be called again and again. Each
// step is one write, so that any process can go on at any time; of two that
// call it at the same time one does nothing. It says what the CA waits for, and
// whether anything is another than before.
func (d *Domains) Keep(w Wanted, lacking Lacking) (waits string, changed bool, err error) {
	have, err := d.load(w.Domain)
	if err != nil {
		return "", false, err
	}
	given, trouble := d.external(w.Domain)
	if trouble != nil && have.authority == nil {
		return "", false, trouble // never another CA than the one that was meant
	}
	var next *authority
	s := &step{d: d, w: w, now: d.cfg.Now(), external: given, lacking: lacking}
	if have.authority == nil || have.UID != w.UID || have.TrustDomain != w.TrustDomain {
		if trouble != nil {
			return "", false, trouble
		}
		next, err = s.begin()
	} else {
		next, err = s.proceed(have.authority)
	}
	if err == nil {
		err = trouble
	}
	if next == nil {
		return s.waits, false, err
	}
	b, encodeErr := next.encode()
	if encodeErr != nil {
		return "", false, encodeErr
	}
	ok, writeErr := d.cfg.Vault.Write(map[string]int64{domainFile(w.Domain): have.revision}, map[string][]byte{domainFile(w.Domain): b})
	if writeErr != nil {
		return "", false, fmt.Errorf("write the CA of Domain %s: %w", w.Domain, writeErr)
	}
	if !ok {
		return s.waits, false, err // another process was first
	}
	_, readErr := d.load(w.Domain)
	return s.waits, true, cmp.Or(err, readErr)
}

// step is one call of Keep.
type step struct {
	d        *Domains
	w        Wanted
	now      time.Time
	external *external
	lacking  Lacking
	waits    string
}

// begin makes a CA.
func (s *step) begin() (*authority, error) {
	signs, err := s.anotherSigner()
	if err != nil {
		return nil, err
	}
	key, err := newTokenKey(s.now)
	if err != nil {
		return nil, err
	}
	return &authority{UID: s.w.UID, TrustDomain: s.w.TrustDomain, Phase: Steady, Since: s.now, Asked: s.w.Rotate, Life: s.w.Life, Signs: *signs, Keys: []tokenKey{key}}, nil
}

func (s *step) anotherSigner() (*signer, error) {
	if s.external != nil {
		return s.d.fromExternal(s.external, s.w.TrustDomain)
	}
	return s.d.newSigner(s.w.TrustDomain)
}

// proceed returns the CA after one step; nil: nothing is to be done. An error
// may come with a step: of what could not be done beside it.
func (s *step) proceed(old *authority) (*authority, error) {
	a := *old
	a.Retired, a.Keys = slices.Clone(old.Retired), slices.Clone(old.Keys)
	changed := s.live(&a)
	var err error
	switch {
	case a.Phase == Steady && s.wantsAnother(&a):
		changed, err = s.announce(&a, changed)
	case a.Phase == Announced:
		changed, err = s.switchOver(&a, changed)
	case a.Phase == Switched:
		changed = s.retire(&a) || changed
	}
	renewed, renewErr := s.d.renew(&a.Signs, a.TrustDomain, s.external)
	keys, keyErr := s.keepKeys(&a)
	if !changed && !renewed && !keys {
		return nil, cmp.Or(err, renewErr, keyErr)
	}
	return &a, cmp.Or(err, renewErr, keyErr)
}

// live takes another life of SVIDs over.
func (s *step) live(a *authority) bool {
	if s.w.Life == a.Life {
		return false
	}
	if s.w.Life < a.Life {
		a.Longest = latest(a.Longest, s.deadline(a.Life))
	}
	a.Life = s.w.Life
	return true
}

// deadline is when nothing is alive any more that is signed until now for such
// a life, by any process: one may go by what it read a moment ago, and have
// another clock.
func (s *step) deadline(life time.Duration) time.Time {
	return s.now.Add(life + s.d.cfg.Stale + min(maxSkew, life/10))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// wantsAnother: somebody asked for another root, another external CA was given,
// or half of the life of our own is over.
func (s *step) wantsAnother(a *authority) bool {
	if s.w.Rotate != a.Asked || s.external != nil && s.external.hash != a.Signs.External {
		return true
	}
	if a.Signs.External != "" {
		return false
	}
	root, err := x509.ParseCertificate(a.Signs.Roots[0])
	return err == nil && !s.now.Before(halfway(root))
}

// announce makes the next root.
func (s *step) announce(a *authority, changed bool) (bool, error) {
	next, err := s.anotherSigner()
	if err != nil {
		return changed, err
	}
	key, err := newTokenKey(time.Time{})
	if err != nil {
		return changed, err
	}
	a.Next, a.Phase, a.Since, a.Asked = next, Announced, s.now, s.w.Rotate
	a.Keys = append(a.Keys, key)
	return true, nil
}

// switchOver lets the next root sign when it is trusted everywhere. Who is away
// is waited for until its certificates, which it cannot renew, have ended: then
// it loses nothing.
func (s *step) switchOver(a *authority, changed bool) (bool, error) {
	if s.external != nil && s.external.hash != a.Next.External {
		next, err := s.anotherSigner() // that is the one that was meant
		if err != nil {
			return changed, err
		}
		a.Next, a.Since = next, s.now
		return true, nil
	}
	until := latest(a.Longest, a.Since.Add(a.Life))
	missing := s.lacking(a.roots())
	switch {
	case s.w.Order == Hold:
		s.waits = "the next root does not sign because that is on hold"
		return changed, nil
	case len(missing) > 0 && s.now.Before(until) && s.w.Order != Hurry && s.w.Order != Drop:
		s.waits = fmt.Sprintf("the next root signs when these nodes trust it too, or at %s: %s", until.UTC().Format(time.RFC3339), names(missing))
		return changed, nil
	}
	a.Retired = append(a.Retired, retired{Roots: a.Signs.Roots, Until: latest(a.Longest, s.deadline(a.Life))})
	a.Signs, a.Next, a.Phase, a.Since = *a.Next, nil, Switched, s.now
	for i := range a.Keys {
		if a.Keys[i].From.IsZero() {
			a.Keys[i].From = s.now
		}
	}
	return true, nil
}

// retire takes roots away of which nothing is alive.
func (s *step) retire(a *authority) bool {
	gone := func(r retired) bool { return s.w.Order == Drop || !s.now.Before(r.Until) }
	if len(a.Retired) > 0 && !slices.ContainsFunc(a.Retired, gone) {
		s.waits = fmt.Sprintf("the former root goes at %s, when nothing that it signed is alive", a.Retired[0].Until.UTC().Format(time.RFC3339))
		return false
	}
	a.Retired = slices.DeleteFunc(a.Retired, gone)
	if len(a.Retired) == 0 {
		a.Phase, a.Since = Steady, s.now
	}
	return true
}

// names lists some names for people.
func names(all []string) string {
	const some = 5
	if len(all) > some {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:some], ", "), len(all)-some)
	}
	return strings.Join(all, ", ")
}

// public is what others may know.
func (a *authority) public() (*Public, error) {
	p := &Public{TrustDomain: a.TrustDomain, Roots: a.roots(), Phase: a.Phase, Since: a.Since}
	var err error
	if p.Keys, err = keySet(a.Keys); err != nil {
		return nil, err
	}
	for _, root := range p.Roots {
		c, err := x509.ParseCertificate(root)
		if err != nil {
			return nil, fmt.Errorf("a root of %s cannot be read: %w", a.TrustDomain, err)
		}
		sum := sha256.Sum256(root)
		p.States = append(p.States, a.stateOf(root, RootState{Fingerprint: hex.EncodeToString(sum[:]), NotAfter: c.NotAfter}))
	}
	return p, nil
}

func (a *authority) stateOf(root []byte, st RootState) RootState {
	has := func(roots [][]byte) bool {
		return slices.ContainsFunc(roots, func(r []byte) bool { return bytes.Equal(r, root) })
	}
	switch {
	case has(a.Signs.Roots):
		st.State, st.External = "signs", a.Signs.External != ""
	case a.Next != nil && has(a.Next.Roots):
		st.State, st.External = "next", a.Next.External != ""
	default:
		st.State = "retired"
		for _, r := range a.Retired {
			if has(r.Roots) {
				st.Until = r.Until
			}
		}
	}
	return st
}
