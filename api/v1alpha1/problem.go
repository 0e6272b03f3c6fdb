package v1alpha1

import "fmt"

// Problem is something wrong with what people wrote: where, why and how to
// mend it.
type Problem struct {
	// Code is stable, such as MOI1003; see docs/problems.md.
	Code string
	// Object is "<Kind> <project>/<name>" or "<Kind> <name>".
	Object string
	// Field is the path inside the object, such as spec.prefixes[1].
	Field string
	// Reason says what is wrong, Fix what to do; both are one sentence without
	// a capital at the start and a full stop at the end.
	Reason string
	Fix    string
	// Warning: the object is accepted, but probably does not do what was meant.
	Warning bool
	// File and Line are set when the object came from a file.
	File string
	Line int
}

// Error is "file:line: Kind project/name: field: reason; fix (code)" with the
// parts that are known.
func (p Problem) Error() string {
	s := fmt.Sprintf("%s: %s: %s", p.Object, p.Field, p.Reason)
	if p.Field == "" {
		s = fmt.Sprintf("%s: %s", p.Object, p.Reason)
	}
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	if p.Code != "" {
		s += " (" + p.Code + ")"
	}
	if p.File != "" {
		s = fmt.Sprintf("%s:%d: %s", p.File, p.Line, s)
	}
	return s
}
