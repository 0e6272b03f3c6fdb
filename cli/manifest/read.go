package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"moire.dev/moire/cli/fault"
)

// Stdin is the path that means standard input.
const Stdin = "-"

// Limits of what is read: far above real use, far below what hurts.
const (
	maxFile  = 16 << 20 // bytes
	maxNodes = 1 << 20  // values of one file after aliases are followed
	maxDepth = 64
)

// Files lists the files behind paths: a file is itself, a directory its
// *.yaml, *.yml and *.json in the order of their names, with recursive also
// those below it. "-" stays "-".
func Files(paths []string, recursive bool) ([]string, error) {
	var files []string
	for _, p := range paths {
		if p == Stdin {
			files = append(files, p)
			continue
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, fault.Usagef("give an existing file, a directory or - for standard input", "-f: %v", err)
		}
		if !info.IsDir() {
			files = append(files, p)
			continue
		}
		inside, err := filesIn(p, recursive)
		if err != nil {
			return nil, err
		}
		files = append(files, inside...)
	}
	return files, nil
}

func filesIn(dir string, recursive bool) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != dir && !recursive {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(path) {
		case ".yaml", ".yml", ".json":
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return nil, fault.Usagef("make the directory readable", "-f: %v", err)
	}
	if len(files) == 0 {
		fix := "put *.yaml, *.yml or *.json files there"
		if !recursive {
			fix += ", or look into its folders with -R"
		}
		return nil, fault.Usagef(fix, "-f: the directory %s holds no files to read", dir)
	}
	slices.Sort(files)
	return files, nil
}

// Read reads every document of files, which came from Files.
func Read(files []string, stdin io.Reader) ([]*Doc, error) {
	var docs []*Doc
	for _, f := range files {
		name, text, err := ReadFile(f, stdin)
		if err != nil {
			return nil, err
		}
		some, err := Parse(name, text)
		if err != nil {
			return nil, err
		}
		docs = append(docs, some...)
	}
	return docs, nil
}

// ReadFile reads one file; name is what it is called in messages.
func ReadFile(path string, stdin io.Reader) (name string, text []byte, err error) {
	r, name := stdin, "stdin"
	if path != Stdin {
		f, err := os.Open(path)
		if err != nil {
			return "", nil, fault.Usagef("make the file readable", "-f: %v", err)
		}
		defer f.Close()
		r, name = f, path
	}
	text, err = io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return "", nil, fault.Usagef("make the file readable", "-f %s: %v", name, err)
	}
	if len(text) > maxFile {
		return "", nil, fault.Usagef("split the file", "-f %s: larger than %d MiB", name, maxFile>>20)
	}
	return name, text, nil
}

// Parse reads the documents of one file. Lists become their items; empty
// documents are left out.
func Parse(name string, text []byte) ([]*Doc, error) {
	var docs []*Doc
	dec := yaml.NewDecoder(bytes.NewReader(text))
	budget := maxNodes
	for {
		var node yaml.Node
		err := dec.Decode(&node)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, syntax(name, err)
		}
		if len(node.Content) == 0 {
			continue
		}
		some, err := documents(name, node.Content[0], &budget)
		if err != nil {
			return nil, err
		}
		docs = append(docs, some...)
	}
}

// syntax turns "yaml: line 3: ..." into "name:3: ...".
func syntax(name string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		_, rest, _ := strings.Cut(text, ": ")
		return fault.Usagef("mend the YAML", "%s:%d: %s", name, line, rest)
	}
	return fault.Usagef("mend the YAML", "%s:1: %s", name, text)
}

func documents(name string, node *yaml.Node, budget *int) ([]*Doc, error) {
	c := converter{file: name, budget: budget}
	value, err := c.value(node, 0)
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, nil
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, fault.Usagef("start with apiVersion: moire.dev/v1alpha1 and kind: ...", "%s:%d: this is not an object", name, node.Line)
	}
	kind, _ := object["kind"].(string)
	items, isList := object["items"].([]any)
	if !isList || !strings.HasSuffix(kind, "List") {
		return one(name, node, object)
	}
	seq := child(resolve(node), "items")
	var docs []*Doc
	for i, item := range items {
		at := resolve(seq).Content[i]
		object, ok := item.(map[string]any)
		if !ok {
			return nil, fault.Usagef("make each item an object", "%s:%d: items[%d] is not an object", name, at.Line, i)
		}
		some, err := one(name, at, object)
		if err != nil {
			return nil, err
		}
		docs = append(docs, some...)
	}
	return docs, nil
}

func one(name string, node *yaml.Node, object map[string]any) ([]*Doc, error) {
	d := &Doc{File: name, Line: node.Line, Object: object, node: node}
	d.APIVersion, _ = object["apiVersion"].(string)
	d.Kind, _ = object["kind"].(string)
	meta, _ := object["metadata"].(map[string]any)
	d.Name, _ = meta["name"].(string)
	d.Namespace, _ = meta["namespace"].(string)
	switch {
	case d.APIVersion == "":
		return nil, fault.Usagef("write apiVersion: moire.dev/v1alpha1", "%s:%d: apiVersion is missing or not text", name, d.Line)
	case d.Kind == "":
		return nil, fault.Usagef("write kind: Network, Workload, Policy, Node or Domain", "%s:%d: kind is missing or not text", name, d.Line)
	case d.Name == "":
		return nil, fault.Usagef("write metadata.name", "%s:%d: %s: metadata.name is missing or not text", name, d.LineOf("metadata"), d.Kind)
	}
	return []*Doc{d}, nil
}
