package cli

import (
	"fmt"
	"slices"

	"moire.dev/moire/api/load"
	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/manifest"
)

// readChecked reads files, checks them and orders their objects. What is wrong
// is told with file and line before anything is sent.
func (a *app) readChecked(paths []string, recursive bool, project string) ([]*manifest.Doc, error) {
	files, err := manifestFiles(paths, recursive)
	if err != nil {
		return nil, err
	}
	var docs []*manifest.Doc
	bad := false
	loader := load.Loader{Project: project}
	for _, f := range files {
		name, text, err := manifest.ReadFile(f, a.in)
		if err != nil {
			return nil, err
		}
		some, parseErr := manifest.Parse(name, text)
		_, problems := loader.Bytes(name, text)
		found := a.tellProblems(foreignAside(some, problems))
		if parseErr != nil && !found {
			a.tell(parseErr)
			found = true
		}
		bad = bad || found
		docs = append(docs, some...)
	}
	if bad {
		return nil, fault.Exit(fault.Usage)
	}
	return a.arrange(docs, paths[0], project)
}

// manifestFiles is manifest.Files for a flag that must be given.
func manifestFiles(paths []string, recursive bool) ([]string, error) {
	if len(paths) == 0 {
		return nil, fault.Usagef("give a file, a directory or - for standard input", "-f is missing")
	}
	return manifest.Files(paths, recursive)
}

// foreignAside leaves out the objection to kinds that are not ours: the server
// may know them.
func foreignAside(docs []*manifest.Doc, problems []v1alpha1.Problem) []v1alpha1.Problem {
	return slices.DeleteFunc(problems, func(p v1alpha1.Problem) bool {
		return p.Code == v1alpha1.CodeUnknownKind && slices.ContainsFunc(docs, func(d *manifest.Doc) bool {
			return d.APIVersion != v1alpha1.GroupVersion.String() && d.File == p.File && d.LineOf("kind") == p.Line
		})
	})
}

// tellProblems prints problems and says whether one of them is an error.
func (a *app) tellProblems(problems []v1alpha1.Problem) (bad bool) {
	for _, p := range problems {
		if p.Warning {
			a.say("warning: %s", p.Error())
			continue
		}
		bad = true
		a.say("error: %s", p.Error())
	}
	return bad
}

// readIntent reads files for questions without a server.
func (a *app) readIntent(paths []string, recursive bool, project string) (*load.Objects, error) {
	if slices.Contains(paths, manifest.Stdin) {
		return nil, fault.Usagef("save it to a file", "-f -: standard input cannot be asked")
	}
	files, err := manifestFiles(paths, recursive)
	if err != nil {
		return nil, err
	}
	// Only to see which kinds are foreign; load says what is wrong.
	docs, parseErr := manifest.Read(files, a.in)
	objects, problems := load.Loader{Project: project}.Files(files...)
	switch bad := a.tellProblems(foreignAside(docs, problems)); {
	case bad:
		return nil, fault.Exit(fault.Usage)
	case parseErr != nil:
		return nil, parseErr
	case len(objects.Items) == 0:
		return nil, fault.Usagef("give the files that declare Domains, Namespaces, Networks, Workloads and Policies", "-f: there is nothing of Moiré in %s", fmt.Sprint(paths))
	}
	return objects, nil
}
