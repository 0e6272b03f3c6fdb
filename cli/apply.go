package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/manifest"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

const defaultManager = "moire"

// applyFlags are the flags of `moire apply` and `moire diff`.
type applyFlags struct {
	files      []string
	recursive  bool
	serverSide bool
	manager    string
	force      bool
	dryRun     string
	output     string
}

func (f *applyFlags) bindFiles(c *cobra.Command) {
	c.Flags().StringArrayVarP(&f.files, "filename", "f", nil, "file, directory or - for standard input; may be given several times")
	c.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "also the folders below the directories")
}

func (a *app) applyCommand() *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Make the server have what files say",
		Long: `Make the server have what files say: objects that are absent are created, the
others changed where they differ (server-side apply). The files are checked
first, so a mistake is found before anything is changed. Objects are sent in
the order in which they depend on each other.`,
		Example: `  moire apply -f shop.yaml
  moire apply -f intent/ -R --dry-run=server
  moire apply -p shop -f - < net.yaml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.apply(c.Context(), f) },
	}
	f.bindFiles(c)
	fl := c.Flags()
	fl.BoolVar(&f.serverSide, "server-side", true, "apply on the server; there is no other way")
	fl.StringVar(&f.manager, "field-manager", defaultManager, "name under which the fields are owned")
	fl.BoolVar(&f.force, "force-conflicts", false, "take over fields that somebody else owns")
	fl.StringVar(&f.dryRun, "dry-run", "none", "none, client (check the files only) or server (let the server check without keeping)")
	fl.Lookup("dry-run").NoOptDefVal = "client"
	fl.StringVarP(&f.output, "output", "o", "", "name, json or yaml")
	return c
}

// applying is one run of apply or diff.
type applying struct {
	app       *app
	client    *remote.Client
	flags     applyFlags
	format    show.Format
	docs      []*manifest.Doc
	dryServer bool
	results   []any
}

func (a *app) apply(ctx context.Context, f applyFlags) error {
	if !f.serverSide {
		return fault.Usagef("leave --server-side=false out", "moire applies on the server only")
	}
	if !slices.Contains([]string{"none", "client", "server"}, f.dryRun) {
		return fault.Usagef("use none, client or server", "--dry-run=%s is unknown", f.dryRun)
	}
	r, err := a.newApplying(f)
	if err != nil {
		return err
	}
	r.dryServer = f.dryRun == "server"
	errs, err := r.all(ctx)
	if err != nil {
		return err
	}
	if err := r.writeResults(); err != nil {
		return err
	}
	if len(errs) > 0 {
		return fault.Exit(fault.Worse(errs))
	}
	return nil
}

// stop says whether to give up instead of trying the next object.
func stop(err error) bool {
	code := fault.Code(err)
	return code == fault.Unreachable || code == fault.Timeout || errors.Is(err, context.Canceled)
}

// newApplying reads and checks the files and, unless only the files are to be
// checked, opens the connection.
func (a *app) newApplying(f applyFlags) (*applying, error) {
	r := &applying{app: a, flags: f}
	var err error
	if r.format, err = show.ParseFormat(f.output, show.Name, show.JSON, show.YAML); err != nil {
		return nil, err
	}
	project, err := a.workspace()
	if err != nil {
		return nil, err
	}
	if f.dryRun != "client" {
		if r.client, err = a.client(); err != nil {
			return nil, err
		}
		project = r.client.Namespace
	}
	if project == "" {
		project = "default"
	}
	if r.docs, err = a.readChecked(f.files, f.recursive, project); err != nil {
		return nil, err
	}
	return r, nil
}

// arrange puts objects into their project, refuses twins and orders the rest by
// what they depend on. where names their source.
func (a *app) arrange(docs []*manifest.Doc, where, project string) ([]*manifest.Doc, error) {
	if len(docs) == 0 {
		return nil, fault.Usagef("write at least one object", "-f: there is no object in %s", where)
	}
	seen := map[string]*manifest.Doc{}
	for _, d := range docs {
		if err := a.place(d, project); err != nil {
			return nil, err
		}
		key := d.APIVersion + " " + d.String()
		if first := seen[key]; first != nil {
			return nil, fault.Usagef("remove or rename one of them", "%s:%d: %s is already at %s:%d", d.File, d.Line, d, first.File, first.Line)
		}
		seen[key] = d
	}
	slices.SortStableFunc(docs, func(x, y *manifest.Doc) int { return rank(x) - rank(y) })
	return docs, nil
}

// place puts objects without a namespace into the project, and refuses those
// that name another than the flag does.
func (a *app) place(d *manifest.Doc, project string) error {
	if err := checkNames([]string{d.Name}); err != nil {
		return fault.Usagef("use lower-case letters, digits and -", "%s:%d: %s: %q cannot be a name", d.File, d.LineOf("metadata.name"), d.Kind, d.Name)
	}
	for _, k := range remote.Kinds() {
		if k.APIVersion() == d.APIVersion && k.Kind == d.Kind && !k.Namespaced {
			return nil
		}
	}
	flag := a.namespace + a.project
	switch {
	case d.Namespace == "" && !clusterWide(d):
		d.SetNamespace(project)
	case flag != "" && d.Namespace != "" && d.Namespace != project:
		return fault.Usagef("leave -p out, or change metadata.namespace",
			"%s:%d: %s: its namespace is not the project %s that was asked for", d.File, d.LineOf("metadata.namespace"), d, project)
	}
	if d.Namespace != "" && checkNames([]string{d.Namespace}) != nil {
		return fault.Usagef("use the name of a project", "%s:%d: %s: %q cannot be a namespace", d.File, d.LineOf("metadata.namespace"), d.Kind, d.Namespace)
	}
	return nil
}

// clusterWide lists the usual kinds beside ours that have no namespace.
func clusterWide(d *manifest.Doc) bool {
	return slices.Contains([]string{"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "APIService"}, d.Kind)
}

// rank orders objects by what they depend on.
func rank(d *manifest.Doc) int {
	switch d.Kind {
	case "Domain":
		return 0
	case "Namespace":
		return 1
	case "Network":
		return 3
	case "Node":
		return 4
	case "Workload":
		return 5
	case "Policy":
		return 6
	}
	return 2
}

// outcome is what applying one object did.
type outcome struct {
	display string // such as network.moire.dev
	word    string // created, configured or unchanged
	value   any    // the object as it is now
	err     error
}

// one applies one object and says what that did.
func (r *applying) one(ctx context.Context, d *manifest.Doc) outcome {
	if r.client == nil {
		return outcome{display: localDisplay(d), word: "checked (client dry run)", value: d.Object}
	}
	kind, err := r.client.FindKind(ctx, d.APIVersion, d.Kind)
	if err != nil {
		return outcome{err: err}
	}
	before, err := r.client.Do(ctx, remote.Request{Path: kind.Path(d.Namespace, d.Name)})
	if err != nil && !remote.IsNotFound(err) {
		return outcome{err: err}
	}
	after, err := r.patch(ctx, kind, d)
	if err != nil {
		return outcome{err: err}
	}
	o := outcome{display: kind.Display(), word: "configured"}
	switch {
	case before == nil:
		o.word = "created"
	case same(before.Body, after.Body, r.dryServer):
		o.word = "unchanged"
	}
	if r.dryServer {
		o.word += " (server dry run)"
	}
	if r.format.Kind == show.JSON || r.format.Kind == show.YAML {
		o.value, o.err = show.Decode(after.Body)
	}
	return o
}

func (r *applying) result(d *manifest.Doc, o outcome) error {
	switch r.format.Kind {
	case show.AsTable:
		return r.app.print("%s/%s %s", o.display, d.Name, o.word)
	case show.Name:
		return r.app.print("%s/%s", o.display, d.Name)
	}
	show.HideManagedFields(o.value)
	r.results = append(r.results, o.value)
	return nil
}

func (r *applying) writeResults() error {
	switch len(r.results) {
	case 0:
		return nil
	case 1:
		return r.format.Write(r.app.out, r.results[0])
	}
	return r.format.Write(r.app.out, map[string]any{"apiVersion": "v1", "kind": "List", "items": r.results})
}

// same says whether apply changed nothing that people wrote. Equal versions are
// the quick answer; otherwise contents are compared, because a dry run keeps
// the version and the server may count who owns a field as a change.
func same(before, after []byte, dry bool) bool {
	var v struct{ before, after versioned }
	if json.Unmarshal(before, &v.before) != nil || json.Unmarshal(after, &v.after) != nil {
		return false
	}
	if !dry && v.before.Metadata.ResourceVersion == v.after.Metadata.ResourceVersion {
		return true
	}
	b, err := show.Decode(before)
	if err != nil {
		return false
	}
	a, err := show.Decode(after)
	if err != nil {
		return false
	}
	strip(b)
	strip(a)
	return reflect.DeepEqual(a, b)
}

type versioned struct {
	Metadata show.Meta `json:"metadata"`
}

func localDisplay(d *manifest.Doc) string {
	for _, k := range remote.Kinds() {
		if k.APIVersion() == d.APIVersion && k.Kind == d.Kind {
			return k.Display()
		}
	}
	return d.Kind
}

func (r *applying) query() url.Values {
	q := url.Values{"fieldManager": {r.flags.manager}, "fieldValidation": {"Strict"}}
	if r.flags.force {
		q.Set("force", "true")
	}
	if r.dryServer {
		q.Set("dryRun", "All")
	}
	return q
}

// atLine says in which file and line the server's objection arises.
func (r *applying) atLine(d *manifest.Doc, err error) error {
	var refused *remote.Refused
	if !errors.As(err, &refused) {
		return fmt.Errorf("%s:%d: %s: %w", d.File, d.Line, d, err)
	}
	if len(refused.Causes) == 0 {
		return &fault.Fault{Code: refused.ExitCode(), Cause: err, Fix: refused.Fix(),
			Text: fmt.Sprintf("%s:%d: %s: %s", d.File, d.Line, d, refused.Message)}
	}
	text := ""
	for i, c := range refused.Causes {
		if i > 0 {
			text += "\n       "
		}
		text += fmt.Sprintf("%s:%d: %s: ", d.File, d.LineOf(c.Field), d)
		if c.Field != "" {
			text += c.Field + ": "
		}
		text += c.Message
	}
	return &fault.Fault{Code: refused.ExitCode(), Cause: err, Fix: refused.Fix(), Text: text}
}
