package v1alpha1

import (
	"fmt"
	"strings"
)

// Problem is something wrong with what people wrote: where, why and how to
// mend it.
//
// +kubebuilder:object:generate=false
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
	var parts []string
	for _, part := range []string{p.Object, p.Field, p.Reason} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	s := strings.Join(parts, ": ")
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	if p.Code != "" {
		s += " (" + p.Code + ")"
	}
	switch {
	case p.File != "" && p.Line > 0:
		s = fmt.Sprintf("%s:%d: %s", p.File, p.Line, s)
	case p.File != "":
		s = p.File + ": " + s
	}
	return s
}
