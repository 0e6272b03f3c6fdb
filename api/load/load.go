package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"moire.dev/moire/api/v1alpha1"
)

// Limits of what is read: far above real use, far below what hurts.
const (
	maxFile     = 16 << 20 // bytes of one file
	maxNodes    = 1 << 20  // values of one file, about
	maxDepth    = 64
	maxProblems = 100 // told of one file
	maxQuoted   = 80  // bytes of the text quoted in a Problem
)

// Loader reads files. The zero Loader is good.
type Loader struct {
	// Project is put into objects that name none. Empty: that is a Problem.
	Project string
	// Recursive looks into the folders below directories too.
	Recursive bool
}

// Files reads files and directories with a zero Loader.
func Files(paths ...string) (*Objects, []v1alpha1.Problem) { return Loader{}.Files(paths...) }

// FS reads from a file system with a zero Loader.
func FS(fsys fs.FS, paths ...string) (*Objects, []v1alpha1.Problem) {
	return Loader{}.FS(fsys, paths...)
}

// Files reads files, and of directories their *.yaml, *.yml and *.json in the
// order of their names.
func (l Loader) Files(paths ...string) (*Objects, []v1alpha1.Problem) {
	r := newReader(l)
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			r.unreadable(p, err)
			continue
		}
		if !info.IsDir() {
			r.file(p, func() (io.ReadCloser, error) { return os.Open(p) })
			continue
		}
		for _, name := range r.list(os.DirFS(p), ".", p) {
			full := filepath.Join(p, filepath.FromSlash(name))
			r.file(full, func() (io.ReadCloser, error) { return os.Open(full) })
		}
	}
	return r.done()
}

// FS reads files and directories of a file system; without paths all of it.
func (l Loader) FS(fsys fs.FS, paths ...string) (*Objects, []v1alpha1.Problem) {
	r := newReader(l)
	if len(paths) == 0 {
		paths = []string{"."}
	}
	for _, p := range paths {
		info, err := fs.Stat(fsys, p)
		if err != nil {
			r.unreadable(p, err)
			continue
		}
		names := []string{p}
		if info.IsDir() {
			names = r.list(fsys, p, p)
		}
		for _, name := range names {
			r.file(name, func() (io.ReadCloser, error) { return fsys.Open(name) })
		}
	}
	return r.done()
}

// Bytes reads the text of one file.
func (l Loader) Bytes(name string, text []byte) (*Objects, []v1alpha1.Problem) {
	r := newReader(l)
	r.file(name, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
	return r.done()
}

// reader gathers the result.
type reader struct {
	loader   Loader
	objects  *Objects
	problems []v1alpha1.Problem
	kinds    map[string]kind
	name     string // of the file
	nodes    int    // that may still be read of the file, aliases followed
	told     int    // Problems of the file
}

func newReader(l Loader) *reader {
	return &reader{loader: l, objects: newObjects(), kinds: kinds()}
}

func (r *reader) done() (*Objects, []v1alpha1.Problem) { return r.objects, r.problems }

func (r *reader) unreadable(name string, err error) {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	r.problems = append(r.problems, v1alpha1.Problem{Code: v1alpha1.CodeUnreadable, File: name, Reason: "cannot be read: " + err.Error(), Fix: "name an existing file or directory"})
}

// list finds the files of a directory.
func (r *reader) list(fsys fs.FS, dir, shown string) []string {
	var out []string
	err := fs.WalkDir(fsys, dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != dir && !r.loader.Recursive:
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		switch path.Ext(p) {
		case ".yaml", ".yml", ".json":
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		r.unreadable(shown, err)
	}
	slices.Sort(out)
	return out
}

func (r *reader) file(name string, open func() (io.ReadCloser, error)) {
	f, err := open()
	if err != nil {
		r.unreadable(name, err)
		return
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		r.unreadable(name, err)
		return
	}
	if len(text) > maxFile {
		r.problems = append(r.problems, v1alpha1.Problem{Code: v1alpha1.CodeTooMuch, File: name, Reason: fmt.Sprintf("the file is larger than %d MiB", maxFile>>20), Fix: "split it"})
		return
	}
	r.name, r.told = name, 0
	// Without aliases there are never more values than bytes.
	r.nodes = len(text) + 1024
	if n := bytes.Count(text, []byte("\n")) + bytes.Count(text, []byte(",")) + bytes.Count(text, []byte("- ")) + bytes.Count(text, []byte(":")); n > maxNodes {
		r.problem(nil, 1, v1alpha1.CodeTooMuch, "", "the file has more than a million values", "split it")
		return
	}
	r.documents(text)
}

func (r *reader) documents(text []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			r.syntax(err)
			return // what follows cannot be told apart
		}
		if len(doc.Content) == 1 && !isNull(doc.Content[0]) {
			r.document(doc.Content[0])
		}
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

func (r *reader) syntax(err error) {
	p := v1alpha1.Problem{Code: v1alpha1.CodeUnreadable, File: r.name, Line: 1, Reason: "not valid YAML: " + err.Error(), Fix: "mend it; indent with spaces and quote what begins with a special character"}
	if m := yamlLine.FindStringSubmatch(strings.Split(err.Error(), "\n")[0]); m != nil {
		p.Reason = "not valid YAML: " + m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			p.Line = n
		}
	}
	r.problems = append(r.problems, p)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }
