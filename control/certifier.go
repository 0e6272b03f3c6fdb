package control

import (
	"strings"
	"sync"

	"moire.dev/moire/identity"
	"moire.dev/moire/snapshot"
)

// certifier is who certifies identities for discovery.
type certifier struct {
	*identity.Domains
	current func() *facts

	mu      sync.Mutex
	vouched map[string]vouched // by node
}

// vouched is which identities a snapshot grants to attachments of its node: the
// Domain of each, by SPIFFE ID.
type vouched struct {
	from    *snapshot.Snapshot
	domains map[string]string
}

// Granted looks into the last snapshot of the node, which answers every
// attachment that the node reported.
func (i *certifier) Granted(node, spiffe string) (domain string, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f := i.current()
	if f == nil || f.snaps[node] == nil {
		delete(i.vouched, node)
		return "", false
	}
	s := f.snaps[node]
	g, known := i.vouched[node]
	if !known || g.from != s {
		g = vouched{from: s, domains: map[string]string{}}
		for _, grant := range s.Grants {
			id := s.Identities[grant.Identity]
			trust := s.Trusts[trustDomainOf(id.SPIFFE)]
			if grant.Error == "" && grant.Identity != 0 && trust.Domain != "" && trust.Domain == id.Domain {
				g.domains[id.SPIFFE] = id.Domain
			}
		}
		i.vouched[node] = g
	}
	domain, ok = g.domains[spiffe]
	return domain, ok
}

func newCertifier(domains *identity.Domains, current func() *facts) *certifier {
	return &certifier{Domains: domains, current: current, vouched: map[string]vouched{}}
}

// trustDomainOf is the trust domain of a SPIFFE ID.
func trustDomainOf(spiffe string) string {
	rest, _ := strings.CutPrefix(spiffe, "spiffe://")
	name, _, _ := strings.Cut(rest, "/")
	return name
}
