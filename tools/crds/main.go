// Command crds writes the CRDs of the Gateway API as we install them: without the
// versions that are older than the one that is stored, and those that are not
// served, which are for servers that had an older Gateway API before, and with
// the first paragraph of each description: the rest is in the standard's
// reference, and would cost memory and time at every start.
//
// In: the files of the module, named on the command line. Out: a file of the same
// name in the directory that is named first.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: crds DIRECTORY FILE...")
		os.Exit(2)
	}
	for _, file := range os.Args[2:] {
		if err := write(os.Args[1], file); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, err)
			os.Exit(1)
		}
	}
}

func write(dir, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var crd map[string]any
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return err
	}
	spec, _ := crd["spec"].(map[string]any)
	versions, _ := spec["versions"].([]any)
	var kept []any
	for _, v := range versions { // the newest is the first
		version, _ := v.(map[string]any)
		if version["served"] == true {
			kept = append(kept, v)
		}
		if version["storage"] == true {
			break
		}
	}
	if len(kept) == 0 {
		return errors.New("it serves no version")
	}
	spec["versions"] = kept
	shorten(kept)
	if text, err = yaml.Marshal(crd); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o644)
}

// shorten leaves the first paragraph of each description.
func shorten(value any) {
	switch v := value.(type) {
	case []any:
		for _, e := range v {
			shorten(e)
		}
	case map[string]any:
		for name, e := range v {
			if text, is := e.(string); is && name == "description" {
				first, _, _ := strings.Cut(text, "\n\n")
				v[name] = first
				continue
			}
			shorten(e)
		}
	}
}
