package svid

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"maps"

	"moire.dev/moire/snapshot/wire"
)

// ask gets new SVIDs for new keys, and keeps them.
func (s *Store) ask(ctx context.Context, ids []string) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	in := &wire.IssueRequest{}
	keys := make([]*ecdsa.PrivateKey, len(ids))
	for i, id := range ids {
		key, csr, err := newRequest()
		if err != nil {
			s.failed(ids, err)
			return
		}
		keys[i] = key
		in.Svids = append(in.Svids, &wire.SVIDRequest{Spiffe: id, Csr: csr})
	}
	out, err := s.cfg.Authority.Issue(ctx, in)
	if err == nil && len(out.GetSvids()) != len(ids) {
		err = errors.New("not as many answers as questions")
	}
	if err != nil {
		s.failed(ids, err)
		return
	}
	next := maps.Clone(s.Current().by)
	for i, id := range ids {
		got, err := s.answer(id, keys[i], out.GetSvids()[i])
		if err != nil {
			s.failed([]string{id}, err)
			continue
		}
		next[id] = got
		s.mu.Lock()
		delete(s.lacks, id)
		s.mu.Unlock()
		s.log.Debug("an identity has a new certificate", "identity", id, "until", got.Leaf.NotAfter)
	}
	s.publish(next)
}

// answer checks one answer and puts it on disk, before anybody uses it.
func (s *Store) answer(id string, key *ecdsa.PrivateKey, got *wire.IssuedSVID) (*SVID, error) {
	if text := got.GetError(); text != "" {
		return nil, errors.New(text)
	}
	v, err := newSVID(id, key, got.GetChain(), s.now())
	if err != nil {
		return nil, err
	}
	return v, replaceFile(s.path(id), v.encode())
}

// failed notes why identities have no new SVID, and when to try again.
func (s *Store) failed(ids []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		l := s.lacks[id]
		if l.why != err.Error() {
			l.why = err.Error()
			s.log.Warn("an identity gets no certificate; trying again", "identity", id, "error", err)
		}
		l.pause = min(max(2*l.pause, firstPause), lastPause)
		if have := s.Current().Get(id); have != nil {
			l.pause = max(min(l.pause, have.Leaf.NotAfter.Sub(s.now())/8), firstPause)
		}
		l.again = s.now().Add(jitter(l.pause))
		s.lacks[id] = l
	}
}
