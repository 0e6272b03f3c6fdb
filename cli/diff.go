package cli

import (
	"context"
	"net/http"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/manifest"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

func (a *app) diffCommand() *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Show what apply would change",
		Long: `Show what apply would change, as a unified diff of what is and what would be.
The server computes both (server-side apply as dry run). Exit code 0: nothing
would change, 1: something would.`,
		Example: `  moire diff -f shop/
  moire diff -f - < net.yaml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.diff(c.Context(), f) },
	}
	f.bindFiles(c)
	c.Flags().StringVar(&f.manager, "field-manager", defaultManager, "name under which the fields would be owned")
	c.Flags().BoolVar(&f.force, "force-conflicts", true, "show the change also where somebody else owns a field")
	return c
}

func (a *app) diff(ctx context.Context, f applyFlags) error {
	run, err := a.newApplying(f)
	if err != nil {
		return err
	}
	run.dryServer = true
	differs := false
	var errs []error
	for _, d := range run.docs {
		text, err := run.differ(ctx, d)
		if err != nil {
			errs = append(errs, a.tell(run.atLine(d, err)))
			if stop(err) {
				break
			}
			continue
		}
		if len(text) == 0 {
			continue
		}
		differs = true
		paint := a.paint()
		for line := range strings.Lines(string(text)) {
			body, end := strings.CutSuffix(line, "\n")
			if _, err := a.out.Write([]byte(paint.Diff(show.Plain(body)))); err != nil {
				return err
			}
			if end {
				if _, err := a.out.Write([]byte("\n")); err != nil {
					return err
				}
			}
		}
	}
	switch {
	case len(errs) > 0:
		// Code 1 would say "differs", which is not known.
		code := fault.Worse(errs)
		if code == fault.Failed {
			code = fault.Usage
		}
		return fault.Exit(code)
	case differs:
		return fault.Exit(fault.Failed)
	}
	return nil
}

// differ is the diff of one object, empty if apply would change nothing.
func (r *applying) differ(ctx context.Context, d *manifest.Doc) ([]byte, error) {
	kind, err := r.client.FindKind(ctx, d.APIVersion, d.Kind)
	if err != nil {
		return nil, err
	}
	path := kind.Path(d.Namespace, d.Name)
	var live any
	answer, err := r.client.Do(ctx, remote.Request{Path: path})
	switch {
	case remote.IsNotFound(err):
	case err != nil:
		return nil, err
	default:
		if live, err = show.Decode(answer.Body); err != nil {
			return nil, err
		}
	}
	merged, err := r.patch(ctx, kind, d)
	var wanted any
	switch {
	case remote.IsNotFound(err) && live == nil:
		// Its project does not exist yet, so the server cannot try it.
		wanted = d.Object
	case err != nil:
		return nil, err
	default:
		if wanted, err = show.Decode(merged.Body); err != nil {
			return nil, err
		}
	}
	was, err := comparable(live)
	if err != nil {
		return nil, err
	}
	will, err := comparable(wanted)
	if err != nil {
		return nil, err
	}
	name := kind.Display() + "/" + d.Name
	if d.Namespace != "" {
		name = d.Namespace + "/" + name
	}
	return diff.Diff("live/"+name, was, "applied/"+name, will), nil
}

// comparable is an object as YAML without what the server counts by itself.
func comparable(value any) ([]byte, error) {
	if value == nil {
		return nil, nil
	}
	strip(value)
	return show.ToYAML(value)
}

// strip removes what differs between two states of an object although nobody
// asked for a change.
func strip(value any) {
	show.HideManagedFields(value)
	object, ok := value.(map[string]any)
	if !ok {
		return
	}
	delete(object, "status")
	if meta, ok := object["metadata"].(map[string]any); ok {
		for _, field := range []string{"resourceVersion", "generation", "uid", "creationTimestamp"} {
			delete(meta, field)
		}
	}
}

// patch sends the object by server-side apply.
func (r *applying) patch(ctx context.Context, kind remote.Kind, d *manifest.Doc) (*remote.Answer, error) {
	body, err := d.JSON()
	if err != nil {
		return nil, err
	}
	q := r.query()
	for {
		answer, err := r.client.Do(ctx, remote.Request{
			Method: http.MethodPatch, Path: kind.Path(d.Namespace, d.Name), Query: q,
			Type: "application/apply-patch+yaml", Body: body,
		})
		if q.Has("force") || !remote.OwnedByNobody(err) {
			return answer, err
		}
		q.Set("force", "true")
	}
}
