package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	File   string
	Line   int    // 0: the whole file
	Field  string // routes[2].rules[0].name; empty: the file as text
	Reason string
	Fix    string
}

// Error is file:line: field: reason; fix.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Field != "" {
		b.WriteString(": " + p.Field)
	}
	b.WriteString(": " + p.Reason)
	if p.Fix != "" {
		b.WriteString("; " + p.Fix)
	}
	return b.String()
}

// Problems is the error of Load: all that is wrong, one a line.
type Problems []Problem

// Error lists them.
func (all Problems) Error() string {
	lines := make([]string, len(all))
	for i, p := range all {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap is for errors.As.
func (all Problems) Unwrap() []error {
	out := make([]error, len(all))
	for i, p := range all {
		out[i] = p
	}
	return out
}

func (all Problems) sort() {
	slices.SortStableFunc(all, func(x, y Problem) int { return cmp.Compare(x.Line, y.Line) })
}

// clip shortens what is quoted of somebody's text, and never shows a key.
func clip(s string) string {
	if strings.Contains(s, "-----BEGIN") {
		return "PEM"
	}
	if len(s) <= maxQuoted {
		return s
	}
	return strings.ToValidUTF8(s[:maxQuoted], "") + "..."
}
