package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"moire.dev/moire/snapshot/l7"
)

// Limits of what is read: far above real use, far below what hurts.
const (
	maxFile     = 16 << 20 // bytes
	maxValues   = 1 << 20  // about; aliases followed
	maxDepth    = 32
	maxProblems = 100
	maxQuoted   = 80 // bytes of the text quoted in a Problem
)

// Load reads the file at a path. Certificates that it names by relative paths
// are looked for in its folder, and are opened to see that they are in order.
// The error is Problems, or what opening the file said.
func Load(path string) (*l7.Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	r := newReader(path)
	r.folder = filepath.Dir(path)
	cfg := r.read(text)
	if len(r.problems) > 0 {
		return nil, r.done()
	}
	return cfg, nil
}

// Parse reads the text of a file; the name is for Problems. Files that it names
// are not opened. With Problems the Config is what could be read of it, and
// must not be used otherwise than for showing it.
func Parse(name string, text []byte) (*l7.Config, []Problem) {
	r := newReader(name)
	return r.read(text), r.done()
}

// reader gathers Problems and remembers where each field is.
type reader struct {
	name     string
	folder   string // that relative paths start from; empty: no file is opened
	problems Problems
	told     int
	lines    map[string]int // of fields that are there
	broken   []string       // fields that were not understood
	values   int            // that may still be read
	full     bool
}

func newReader(name string) *reader {
	return &reader{name: name, lines: map[string]int{}}
}

func (r *reader) done() Problems {
	r.problems.sort()
	return r.problems
}

func (r *reader) problem(line int, field, fix, reason string, args ...any) {
	if r.told++; r.told > maxProblems {
		return
	}
	p := Problem{File: r.name, Line: line, Field: clip(field), Reason: fmt.Sprintf(reason, args...), Fix: fix}
	if r.told == maxProblems {
		p = Problem{File: r.name, Reason: "there are more problems than are told", Fix: "mend these first"}
	}
	r.problems = append(r.problems, p)
}

// read makes the Config of a text.
func (r *reader) read(text []byte) *l7.Config {
	cfg := &l7.Config{}
	if len(text) > maxFile {
		r.problem(0, "", "split what it does over several proxies", "the file is larger than %d MiB", maxFile>>20)
		return cfg
	}
	if t := bytes.TrimLeft(text, " \t\r\n"); len(t) > 0 && t[0] == '{' {
		// YAML does not take tabs, JSON does; inside its strings there are none.
		text = bytes.ReplaceAll(text, []byte("\t"), []byte(" "))
	}
	n := 0
	for _, c := range []string{"\n", ",", "- ", ":"} {
		n += bytes.Count(text, []byte(c))
	}
	if n > maxValues {
		r.problem(0, "", "split what it does over several proxies", "the file has more than a million values")
		return cfg
	}
	// Without aliases there are never more values than bytes.
	r.values = len(text) + 1024
	root := r.document(text)
	if root == nil {
		return cfg
	}
	r.decode(root, reflect.ValueOf(cfg).Elem(), "", 0)
	if r.folder != "" {
		r.files(cfg)
	}
	for _, p := range cfg.Validate() {
		if !r.follows(p.Field) {
			r.problem(r.line(p.Field), p.Field, p.Fix, "%s", p.Reason)
		}
	}
	r.bundles(cfg)
	r.certificates(cfg)
	return cfg
}

// document is the root of the only document in a text.
func (r *reader) document(text []byte) *yaml.Node {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	err := d.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		r.problem(0, "", "write name, listeners, routes and clusters", "the file is empty")
		return nil
	case err != nil:
		r.syntax(err)
		return nil
	}
	if err := d.Decode(&more); err == nil {
		r.problem(more.Line, "", "write one file for each proxy", "there is a second document")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
	}
	if len(doc.Content) != 1 || isNull(doc.Content[0]) {
		r.problem(0, "", "write name, listeners, routes and clusters", "the file is empty")
		return nil
	}
	return doc.Content[0]
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

func (r *reader) syntax(err error) {
	line, reason := 1, err.Error()
	if m := yamlLine.FindStringSubmatch(strings.Split(reason, "\n")[0]); m != nil {
		reason = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	r.problem(line, "", "mend it; indent with spaces and quote what begins with a special character", "not valid YAML: %s", reason)
}

// line is where a field is, or the nearest that it is part of.
func (r *reader) line(field string) int {
	for field != "" {
		if n, ok := r.lines[field]; ok {
			return n
		}
		field = above(field)
	}
	return 0
}

// above is the field that a field is part of.
func above(field string) string {
	return field[:max(0, strings.LastIndexAny(field, ".["))]
}

// follows says whether a Problem of a field only repeats that it, or one beside
// it, was not understood.
func (r *reader) follows(field string) bool {
	_, there := r.lines[field]
	for _, b := range r.broken {
		if field == b || strings.HasPrefix(field, b+".") || strings.HasPrefix(field, b+"[") || !there && above(b) == above(field) {
			return true
		}
	}
	return false
}
