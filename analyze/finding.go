package analyze

import (
	"cmp"
	"slices"
	"strings"
)

// Severity of a Finding.
type Severity string

// Severities. Notes are worth knowing and no reason to fail.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Note    Severity = "note"
)

// Finding is one thing that is probably not meant. Its JSON field names are
// stable.
type Finding struct {
	// Code is stable, such as MOI4001; see docs/problems.md.
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	// Object is "<Kind> <project>/<name>".
	Object string `json:"object"`
	// Field is the path inside the object, such as spec.ingress[1].from[0].
	Field string `json:"field,omitempty"`
	// File and Line are set by Place.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Reason says what is wrong, Fix what to do; both are one sentence without
	// a capital at the start and a full stop at the end.
	Reason string `json:"reason"`
	Fix    string `json:"fix,omitempty"`
	// Related are rules or objects that have to do with it.
	Related []string `json:"related,omitempty"`
}

// Codes of Findings.
const (
	CodeNobody        = "MOI4001" // a peer selects no Workload
	CodeContradiction = "MOI4002" // a selector that nothing can satisfy
	CodeNoPort        = "MOI4003" // no port is left
	CodeUnreachable   = "MOI4004" // no Link leads to the peer
	CodeNameInside    = "MOI4005" // a DNS name, and no way outside
	CodeShadowed      = "MOI4006"
	CodePartly        = "MOI4007" // shadowed in part
	CodeIdle          = "MOI4008" // a Policy that selects nobody
	CodeSilentLink    = "MOI4009" // a Link over which nothing may pass
	CodeClosedService = "MOI4010" // a Service that nobody may reach
	CodeOverlap       = "MOI4011" // Links that overlap
	CodeUnused        = "MOI4012" // a consent that nobody uses
	CodeNoEqual       = "MOI4013" // matchEqual with a label that one side never has
	CodeNoBackend     = "MOI4014" // a Service or FloatingIP without anything behind it
	CodeNothingLeft   = "MOI4015" // except takes away the whole cidr
	CodeTooMany       = "MOI4016" // more rules than are compared
	CodeUnreadable    = "MOI4017" // a rule about requests where none can be read
	CodeWrongPort     = "MOI4018" // a rule about requests to whose ports no Service leads
)

// kind describes a code.
type kind struct{ code, name, text string }

// kinds are all codes, in order.
var kinds = []kind{
	{CodeNobody, "peer-selects-nobody", "A peer of a rule selects no Workload"},
	{CodeContradiction, "contradictory-selector", "A label selector contradicts itself"},
	{CodeNoPort, "no-port", "A rule has no port that anything could use"},
	{CodeUnreachable, "peer-unreachable", "A peer of a rule is in a Network that no Link leads to"},
	{CodeNameInside, "name-without-outside", "A rule names a DNS name outside, and the Network has no way out"},
	{CodeShadowed, "rule-shadowed", "A rule never decides, because others always come before it"},
	{CodePartly, "rule-partly-shadowed", "A part of a rule never decides, because another comes before it"},
	{CodeIdle, "policy-selects-nobody", "A Policy selects no Workload"},
	{CodeSilentLink, "silent-link", "Nothing may pass over a Link"},
	{CodeClosedService, "closed-service", "Nobody may reach a Service"},
	{CodeOverlap, "overlapping-links", "Links overlap"},
	{CodeUnused, "unused-consent", "A consent is used by nobody"},
	{CodeNoEqual, "match-equal-without-label", "matchEqual names a label that one side never has"},
	{CodeNoBackend, "no-backend", "Nothing is behind a Service or FloatingIP"},
	{CodeNothingLeft, "except-takes-all", "The exceptions of a CIDR take away all of it"},
	{CodeTooMany, "too-many-rules", "There are more rules than are compared"},
	{CodeUnreadable, "requests-unreadable", "A rule is about requests on a port where none can be read"},
	{CodeWrongPort, "requests-elsewhere", "A rule is about requests on ports to which no Service leads"},
}

// Place gives every Finding the file and line that where finds for its field.
func Place(fs []Finding, where func(object, field string) (file string, line int, ok bool)) {
	for i := range fs {
		if file, line, ok := where(fs[i].Object, fs[i].Field); ok {
			fs[i].File, fs[i].Line = file, line
		}
	}
}

// Fails reports whether one of them is more than a note.
func Fails(fs []Finding) bool {
	return slices.ContainsFunc(fs, func(f Finding) bool { return f.Severity != Note })
}

// sorted brings Findings into their one order and drops repetitions.
func sorted(fs []Finding) []Finding {
	slices.SortFunc(fs, compare)
	return slices.CompactFunc(fs, func(a, b Finding) bool { return compare(a, b) == 0 })
}

func compare(a, b Finding) int {
	return cmp.Or(cmp.Compare(a.Object, b.Object), natural(a.Field, b.Field), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Reason, b.Reason))
}

// natural orders paths so that [10] comes after [9].
func natural(a, b string) int {
	digits := func(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }
	for a != "" && b != "" {
		if n, m := digits(a), digits(b); n > 0 && m > 0 {
			if c := cmp.Or(cmp.Compare(n, m), cmp.Compare(a[:n], b[:m])); c != 0 {
				return c
			}
			a, b = a[n:], b[m:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}
