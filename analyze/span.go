package analyze

import (
	"slices"

	"moire.dev/moire/api/v1alpha1"
)

// span is a range of ports of one protocol. Protocol "" stands for those that
// no rule can name.
type span struct {
	protocol    string
	first, last int32
}

var allSpans = []span{{"TCP", 1, 65535}, {"UDP", 1, 65535}, {"SCTP", 1, 65535}, {"ICMP", 0, 0}, {"", 0, 0}}

// spans of a rule; none: a rule without ports has all.
func spans(ports []v1alpha1.Port) []span {
	if len(ports) == 0 {
		return allSpans
	}
	var out []span
	for _, p := range ports {
		s := span{protocol: p.Protocol, first: 1, last: 65535}
		if s.protocol == "" {
			s.protocol = "TCP"
		}
		switch {
		case s.protocol == "ICMP":
			s.first, s.last = 0, 0
		case p.Port > 0:
			s.first, s.last = p.Port, p.Port
			if p.EndPort != 0 {
				s.last = p.EndPort
			}
		}
		if s.first <= s.last {
			out = append(out, s)
		}
	}
	return out
}

// subtract takes b away from a.
func subtract(a, b []span) []span {
	for _, y := range b {
		var rest []span
		for _, x := range a {
			if x.protocol != y.protocol || y.last < x.first || x.last < y.first {
				rest = append(rest, x)
				continue
			}
			if x.first < y.first {
				rest = append(rest, span{x.protocol, x.first, y.first - 1})
			}
			if y.last < x.last {
				rest = append(rest, span{x.protocol, y.last + 1, x.last})
			}
		}
		a = rest
	}
	return a
}

func contains(spans []span, protocol string, port int32) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.protocol == protocol && s.first <= port && port <= s.last })
}
