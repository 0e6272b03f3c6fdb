package moire_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"moire.dev/moire/api/load"
)

// TestDocsLoad: every YAML block of the docs and every example is accepted.
// The commands of the docs are run by lab/demo.
func TestDocsLoad(t *testing.T) {
	fence := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range append(docs, "README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllSubmatch(text, -1) {
			n++
			if _, problems := (load.Loader{}).Bytes(file, m[1]); len(problems) > 0 {
				t.Errorf("a block of %s is not accepted: %v\n%s", file, problems, m[1])
			}
		}
	}
	if n < 3 {
		t.Errorf("found %d YAML blocks; the docs have more", n)
	}
	for _, dir := range []string{"examples/demo", "examples/demo-gateway"} {
		if _, problems := load.Files(dir); len(problems) > 0 {
			t.Errorf("%s: %v", dir, problems)
		}
	}
}

// TestDocsLinks: what the docs point to inside the repository is there.
func TestDocsLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)`)
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "GLOSSARY.md")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s points to %s, which is not there", file, m[1])
			}
		}
	}
}
