package cli

import (
	"bytes"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"moire.dev/moire/analyze"
	"moire.dev/moire/api/load"
	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/show"
	"moire.dev/moire/compile"
)

// Formats of `moire analyze -o` beside JSON.
const (
	asText  = "text"
	asSARIF = "sarif"
)

func (a *app) analyzeCommand() *cobra.Command {
	var files []string
	var recursive bool
	var output string
	c := &cobra.Command{
		Use:   "analyze -f FILE",
		Short: "Find in files what is probably not meant, before anything runs",
		Long: `Find in files what is probably not meant, before anything runs and without a
server: rules that can never match or never decide, Policies that select nobody,
Links over which nothing may pass, Services that nobody may reach, consents that
nobody uses, and what would not be connected. Each finding has a code, explained
in docs/problems.md, and the file and line.
Exit code 1 when there is a finding that is more than a note.`,
		Example: `  moire analyze -f intent/ -R
  moire analyze -f intent/ -o sarif > moire.sarif`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.analyze(files, recursive, output) },
	}
	c.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or directory")
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "also the folders below the directories")
	c.Flags().StringVarP(&output, "output", "o", asText, "text, json or sarif")
	return c
}

func (a *app) analyze(files []string, recursive bool, output string) error {
	format, err := show.ParseFormat(output, asText, show.JSON, asSARIF)
	if err != nil {
		return err
	}
	project, err := a.workspace()
	if err != nil {
		return err
	}
	if project == "" {
		project = "default"
	}
	objects, err := a.readIntent(files, recursive, project)
	if err != nil {
		return err
	}
	found := findings(objects)
	var b bytes.Buffer
	switch format.Kind {
	case show.JSON:
		err = analyze.JSON(&b, found)
	case asSARIF:
		err = analyze.SARIF(&b, found, Version)
	default:
		err = analyze.Text(&b, found)
	}
	if err != nil {
		return err
	}
	if _, err := a.out.Write(b.Bytes()); err != nil {
		return err
	}
	if analyze.Fails(found) {
		return fault.Exit(fault.Failed)
	}
	return nil
}

// findings are those of analyze and, of what compile objects to, what analyze
// does not say itself.
func findings(objects *load.Objects) []analyze.Finding {
	found := analyze.Run(objects.All()...)
	overlapping := func(p v1alpha1.Problem) bool {
		return strings.HasPrefix(p.Object, "Link ") && slices.ContainsFunc(found, func(f analyze.Finding) bool {
			return f.Code == analyze.CodeOverlap && f.Severity == analyze.Error && f.Object == p.Object
		})
	}
	_, problems := compile.Compile(compile.Offline(objects.All()...))
	var rest []analyze.Finding
	for _, p := range problems {
		// MOI3xxx are what analyze looks at more closely.
		if strings.HasPrefix(p.Code, "MOI3") || overlapping(p) {
			continue
		}
		f := analyze.Finding{Code: p.Code, Severity: analyze.Error, Object: p.Object, Field: p.Field, Reason: p.Reason, Fix: p.Fix}
		if p.Warning {
			f.Severity = analyze.Warning
		}
		rest = append(rest, f)
	}
	found = append(rest, found...)
	analyze.Place(found, objects.Where)
	return found
}
