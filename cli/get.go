package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

// getFlags are the flags of `moire get`.
type getFlags struct {
	all       bool // every project
	selector  string
	fields    string
	output    string
	watch     bool
	watchOnly bool
	noHeaders bool
	labels    bool
	managed   bool
	absentOK  bool
}

// target is what one `get` shows: a collection, or some objects of it.
type target struct {
	kind  remote.Kind
	names []string // empty: the collection
}

func (a *app) getCommand() *cobra.Command {
	var f getFlags
	c := &cobra.Command{
		Use:   "get KIND[,KIND...] [NAME...] | KIND/NAME...",
		Short: "Show objects",
		Example: `  moire get networks                       # of the current project
  moire get wl -A -o wide                  # workloads of every project
  moire get net/front -p shop -o yaml
  moire get all -p shop
  moire get nodes -w`,
		ValidArgsFunction: a.completeObjects,
		RunE: func(c *cobra.Command, args []string) error {
			return a.get(c.Context(), f, args)
		},
	}
	fl := c.Flags()
	fl.BoolVarP(&f.all, "all-projects", "A", false, "of every project")
	fl.BoolVar(&f.all, "all-namespaces", false, "the same as --all-projects")
	fl.StringVarP(&f.selector, "selector", "l", "", "only objects with these labels, such as app=web,tier!=db")
	fl.StringVar(&f.fields, "field-selector", "", "only objects with these fields, such as metadata.name=web")
	fl.StringVarP(&f.output, "output", "o", "", "wide, json, yaml, name or jsonpath={.path}")
	fl.BoolVarP(&f.watch, "watch", "w", false, "go on and show every change")
	fl.BoolVar(&f.watchOnly, "watch-only", false, "show only changes")
	fl.BoolVar(&f.noHeaders, "no-headers", false, "no header line")
	fl.BoolVar(&f.labels, "show-labels", false, "a last column with the labels")
	fl.BoolVar(&f.managed, "show-managed-fields", false, "keep metadata.managedFields in json and yaml")
	fl.BoolVar(&f.absentOK, "ignore-not-found", false, "it is no error when a named object is absent")
	c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"wide", "json", "yaml", "name", "jsonpath="}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) get(ctx context.Context, f getFlags, args []string) error {
	format, err := show.ParseFormat(f.output, show.Wide, show.JSON, show.YAML, show.Name, show.JSONPath)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return fault.Usagef("say what, such as: moire get networks", "nothing to get")
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	targets, err := parseTargets(ctx, client, args)
	if err != nil {
		return err
	}
	g := &getting{app: a, client: client, flags: f, format: format, many: len(targets) > 1}
	if err := g.check(targets); err != nil {
		return err
	}
	switch {
	case f.watch || f.watchOnly:
		return g.watch(ctx, targets[0])
	case format.Kind == show.AsTable || format.Kind == show.Wide:
		return g.tables(ctx, targets)
	case format.Kind == show.Name:
		return g.names(ctx, targets)
	}
	return g.objects(ctx, targets)
}

// parseTargets understands `net`, `net,wl`, `net front back`, `net/front wl/web`
// and `all`.
func parseTargets(ctx context.Context, client *remote.Client, args []string) ([]target, error) {
	var targets []target
	if strings.Contains(args[0], "/") {
		for _, arg := range args {
			word, name, ok := strings.Cut(arg, "/")
			if !ok || word == "" || name == "" {
				return nil, fault.Usagef("write every argument as KIND/NAME, or KIND once and then names", "%q is not KIND/NAME", arg)
			}
			k, err := client.Find(ctx, word)
			if err != nil {
				return nil, err
			}
			if err := checkNames([]string{name}); err != nil {
				return nil, err
			}
			targets = append(targets, target{kind: k, names: []string{name}})
		}
		return targets, nil
	}
	names := args[1:]
	if err := checkNames(names); err != nil {
		return nil, err
	}
	for _, word := range strings.Split(args[0], ",") {
		if word == "all" {
			if len(names) > 0 {
				return nil, fault.Usagef("name the kind of the objects", "all cannot be followed by names")
			}
			for _, k := range remote.Kinds() {
				if k.Namespaced {
					targets = append(targets, target{kind: k})
				}
			}
			continue
		}
		k, err := client.Find(ctx, word)
		if err != nil {
			return nil, err
		}
		targets = append(targets, target{kind: k, names: names})
	}
	return targets, nil
}

// checkNames refuses what could not be the name of an object: it would end up
// as another path.
func checkNames(names []string) error {
	for _, n := range names {
		if n == "" || n == "." || n == ".." || strings.ContainsAny(n, "/?%# \t\n") {
			return fault.Usagef("give the name as `moire get` shows it; KIND/NAME must then be used for every argument", "%q is not the name of an object", n)
		}
	}
	return nil
}

// getting is one run of `moire get`.
type getting struct {
	app    *app
	client *remote.Client
	flags  getFlags
	format show.Format
	many   bool
}

func (g *getting) check(targets []target) error {
	named := slices.ContainsFunc(targets, func(t target) bool { return len(t.names) > 0 })
	selected := g.flags.selector != "" || g.flags.fields != ""
	watch := g.flags.watch || g.flags.watchOnly
	switch {
	case named && selected:
		return fault.Usagef("use one or the other", "names and a selector cannot be used together")
	case named && g.flags.all:
		return fault.Usagef("name the project with -p", "an object cannot be got by name from all projects")
	case watch && len(targets) > 1:
		return fault.Usagef("watch one kind at a time", "-w works for one kind only")
	case watch && len(targets[0].names) > 1:
		return fault.Usagef("watch one object, or the whole kind", "-w works for one name only")
	}
	return nil
}

// namespace of requests for kind k.
func (g *getting) namespace(k remote.Kind) string {
	if g.flags.all || !k.Namespaced {
		return ""
	}
	return g.client.Namespace
}

func (g *getting) query(table bool) url.Values {
	q := url.Values{}
	if g.flags.selector != "" {
		q.Set("labelSelector", g.flags.selector)
	}
	if g.flags.fields != "" {
		q.Set("fieldSelector", g.flags.fields)
	}
	// Rows carry the object's metadata only when it is shown: with managed
	// fields it is most of the answer.
	if table && !g.flags.all && !g.flags.labels && !g.flags.watch && !g.flags.watchOnly {
		q.Set("includeObject", "None")
	}
	return q
}

// fetch gets the collection, or each named object; absent ones are left out
// and told at the end.
func (g *getting) fetch(ctx context.Context, t target, accept string, table bool, each func(body []byte) error) error {
	if len(t.names) == 0 {
		answer, err := g.client.Do(ctx, remote.Request{Path: t.kind.Path(g.namespace(t.kind), ""), Query: g.query(table), Accept: accept})
		if err != nil {
			return err
		}
		return each(answer.Body)
	}
	var errs []error
	for _, name := range t.names {
		answer, err := g.client.Do(ctx, remote.Request{Path: t.kind.Path(g.namespace(t.kind), name), Query: g.query(table), Accept: accept})
		switch {
		case remote.IsNotFound(err) && g.flags.absentOK:
		case remote.IsNotFound(err):
			errs = append(errs, g.app.tell(err))
		case err != nil:
			return err
		default:
			if err := each(answer.Body); err != nil {
				return err
			}
		}
	}
	if len(errs) > 0 {
		return fault.Exit(fault.Worse(errs))
	}
	return nil
}

// tell prints an error at once and returns it, so that the others are tried.
func (a *app) tell(err error) error {
	if !fault.Silent(err) {
		fmt.Fprintln(a.err, "error: "+err.Error())
	}
	return err
}
