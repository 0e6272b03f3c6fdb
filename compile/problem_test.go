package compile

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestEveryCodeIsExplained: docs/problems.md has one row for each code, and no
// row for any other.
func TestEveryCodeIsExplained(t *testing.T) {
	docs, err := os.ReadFile("../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`"(MOI\d{4})"`)
	known := map[string]bool{}
	for _, file := range []string{"problem.go", "../api/v1alpha1/codes.go", "../analyze/finding.go", "../control/names.go", "../control/keysets.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range code.FindAllStringSubmatch(string(text), -1) {
			if known[m[1]] {
				t.Errorf("%s has two meanings", m[1])
			}
			known[m[1]] = true
			if n := strings.Count(string(docs), "\n| "+m[1]+" |"); n != 1 {
				t.Errorf("docs/problems.md has %d rows for %s", n, m[1])
			}
		}
	}
	if rows := strings.Count(string(docs), "\n| MOI"); rows != len(known) {
		t.Errorf("docs/problems.md has %d rows, there are %d codes", rows, len(known))
	}
}
