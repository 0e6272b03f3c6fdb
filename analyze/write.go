package analyze

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// String is "file:line: severity: object: field: reason; fix (code)" with the
// parts that are known.
func (f Finding) String() string {
	parts := []string{string(f.Severity), f.Object}
	if f.Field != "" {
		parts = append(parts, f.Field)
	}
	s := strings.Join(append(parts, f.Reason), ": ")
	if f.Fix != "" {
		s += "; " + f.Fix
	}
	s += " (" + f.Code + ")"
	if f.File != "" {
		s = fmt.Sprintf("%s:%d: %s", f.File, f.Line, s)
	}
	return s
}

// Text writes one line for each Finding.
func Text(w io.Writer, fs []Finding) error {
	for _, f := range fs {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	return nil
}

// JSON writes {"findings": [...]}.
func JSON(w io.Writer, fs []Finding) error {
	if fs == nil {
		fs = []Finding{}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		Findings []Finding `json:"findings"`
	}{fs})
}
