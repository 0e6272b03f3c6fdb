package policy

import (
	"net/netip"
	"strings"
)

// MatchName reports whether a DNS name is what the pattern says: the same name,
// or for *.example.com any name of one or more labels in front of example.com.
// Case and a full stop at the end do not count; the empty name matches nothing.
func MatchName(pattern, name string) bool {
	pattern, name = plainName(pattern), plainName(name)
	if name == "" {
		return false
	}
	if parent, any := strings.CutPrefix(pattern, "*"); any {
		return len(name) > len(parent) && strings.HasSuffix(name, parent)
	}
	return name == pattern
}

func plainName(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }

// Named lists the patterns of all Peers that are names, in order, each once.
func (s *Set) Named() []string {
	var out []string
	seen := map[string]bool{}
	for _, r := range s.Rules {
		for _, p := range r.Peers {
			if p.Name != "" && !seen[p.Name] {
				seen[p.Name] = true
				out = append(out, p.Name)
			}
		}
	}
	return out
}

// Resolve returns the Set with every Peer that is a name replaced by the
// addresses that told says the name has now: none means that it matches nobody.
func (s *Set) Resolve(told func(pattern string) []netip.Addr) Set {
	out := *s
	out.Rules = make([]Rule, len(s.Rules))
	for i, r := range s.Rules {
		out.Rules[i] = r
		peers := make([]Peer, 0, len(r.Peers))
		for _, p := range r.Peers {
			if p.Name == "" {
				peers = append(peers, p)
				continue
			}
			for _, a := range told(p.Name) {
				peers = append(peers, Peer{Anyone: true, CIDR: netip.PrefixFrom(a, a.BitLen())})
			}
		}
		if len(peers) == 0 && len(r.Peers) > 0 {
			peers = []Peer{{}} // nobody; no Peers at all would be everybody
		}
		out.Rules[i].Peers = peers
	}
	return out
}
