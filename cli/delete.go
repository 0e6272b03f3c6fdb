package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/manifest"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

// deleteFlags are the flags of `moire delete`.
type deleteFlags struct {
	files     []string
	recursive bool
	selector  string
	all       bool
	wait      bool
	timeout   time.Duration
	absentOK  bool
	dryRun    string
	output    string
}

// doomed is one object to delete; uid is what the server answered.
type doomed struct {
	kind      remote.Kind
	namespace string
	name      string
	where     string // file:line, or empty
	uid       string
}

func (a *app) deleteCommand() *cobra.Command {
	var f deleteFlags
	c := &cobra.Command{
		Use:   "delete KIND NAME... | KIND/NAME... | -f FILE|DIR|-",
		Short: "Delete objects",
		Example: `  moire delete policy db-from-web -p shop
  moire delete -f shop.yaml
  moire delete wl -l app=web`,
		ValidArgsFunction: a.completeObjects,
		RunE:              func(c *cobra.Command, args []string) error { return a.delete(c.Context(), f, args) },
	}
	fl := c.Flags()
	fl.StringArrayVarP(&f.files, "filename", "f", nil, "delete the objects of a file, a directory or - for standard input")
	fl.BoolVarP(&f.recursive, "recursive", "R", false, "also the folders below the directories")
	fl.StringVarP(&f.selector, "selector", "l", "", "objects with these labels")
	fl.BoolVar(&f.all, "all", false, "every object of the kind in the project")
	fl.BoolVar(&f.wait, "wait", true, "wait until the objects are gone")
	fl.DurationVar(&f.timeout, "timeout", time.Minute, "how long to wait")
	fl.BoolVar(&f.absentOK, "ignore-not-found", false, "it is no error when an object is absent")
	fl.StringVar(&f.dryRun, "dry-run", "none", "none, client or server")
	fl.StringVarP(&f.output, "output", "o", "", "name")
	return c
}

func (a *app) delete(ctx context.Context, f deleteFlags, args []string) error {
	if _, err := show.ParseFormat(f.output, show.Name); err != nil {
		return err
	}
	if !slices.Contains([]string{"none", "client", "server"}, f.dryRun) {
		return fault.Usagef("use none, client or server", "--dry-run=%s is unknown", f.dryRun)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	list, err := a.doomed(ctx, client, f, args)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		a.say("No resources found")
		return nil
	}
	var errs []error
	var gone []*doomed
	for _, d := range list {
		err := d.delete(ctx, client, f)
		switch {
		case remote.IsNotFound(err) && f.absentOK:
			continue
		case err != nil:
			if d.where != "" {
				err = fmt.Errorf("%s: %w", d.where, err)
			}
			errs = append(errs, a.tell(err))
			if stop(err) {
				return fault.Exit(fault.Worse(errs))
			}
			continue
		}
		gone = append(gone, d)
		if err := a.deleted(d, f); err != nil {
			return err
		}
	}
	if f.wait && f.dryRun == "none" {
		if err := a.waitGone(ctx, client, gone, f.timeout); err != nil {
			return err
		}
	}
	if len(errs) > 0 {
		return fault.Exit(fault.Worse(errs))
	}
	return nil
}

func (a *app) deleted(d *doomed, f deleteFlags) error {
	if f.output == show.Name {
		return a.print("%s/%s", d.kind.Display(), d.name)
	}
	suffix := ""
	if d.namespace != "" && d.kind.Namespaced {
		suffix = " from " + d.namespace + " namespace"
	}
	if f.dryRun != "none" {
		suffix += " (" + f.dryRun + " dry run)"
	}
	return a.print("%s %q deleted%s", d.kind.Display(), d.name, suffix)
}

// doomed lists what is to be deleted: of files, last dependency first.
func (a *app) doomed(ctx context.Context, client *remote.Client, f deleteFlags, args []string) ([]*doomed, error) {
	if len(f.files) > 0 {
		if len(args) > 0 || f.selector != "" || f.all {
			return nil, fault.Usagef("use one or the other", "-f cannot be used together with names, -l or --all")
		}
		return a.doomedFiles(ctx, client, f)
	}
	if len(args) == 0 {
		return nil, fault.Usagef("say what, such as: moire delete policy NAME", "nothing to delete")
	}
	targets, err := parseTargets(ctx, client, args)
	if err != nil {
		return nil, err
	}
	var list []*doomed
	for _, t := range targets {
		named := len(t.names) > 0
		switch {
		case named && (f.selector != "" || f.all):
			return nil, fault.Usagef("use one or the other", "names cannot be used together with -l or --all")
		case !named && f.selector == "" && !f.all:
			return nil, fault.Usagef("give names, a selector with -l, or --all for every one in the project", "which %s?", t.kind.Plural)
		}
		names := t.names
		if !named {
			if names, err = namesOf(ctx, client, t.kind, f.selector); err != nil {
				return nil, err
			}
		}
		for _, n := range names {
			list = append(list, &doomed{kind: t.kind, namespace: client.Namespace, name: n})
		}
	}
	return list, nil
}

func (a *app) doomedFiles(ctx context.Context, client *remote.Client, f deleteFlags) ([]*doomed, error) {
	// Only their names count here, so the rest is not checked.
	files, err := manifestFiles(f.files, f.recursive)
	if err != nil {
		return nil, err
	}
	docs, err := manifest.Read(files, a.in)
	if err != nil {
		return nil, err
	}
	if docs, err = a.arrange(docs, f.files[0], client.Namespace); err != nil {
		return nil, err
	}
	slices.Reverse(docs)
	var list []*doomed
	for _, d := range docs {
		kind, err := client.FindKind(ctx, d.APIVersion, d.Kind)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", d.File, d.Line, err)
		}
		list = append(list, &doomed{kind: kind, namespace: d.Namespace, name: d.Name, where: fmt.Sprintf("%s:%d", d.File, d.Line)})
	}
	return list, nil
}

func namesOf(ctx context.Context, client *remote.Client, kind remote.Kind, selector string) ([]string, error) {
	q := url.Values{}
	if selector != "" {
		q.Set("labelSelector", selector)
	}
	answer, err := client.Do(ctx, remote.Request{Path: kind.Path(client.Namespace, ""), Query: q,
		Accept: "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"})
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata show.Meta `json:"metadata"`
		} `json:"items"`
	}
	if err := json.Unmarshal(answer.Body, &list); err != nil {
		return nil, fmt.Errorf("the list of %s cannot be read: %w", kind.Plural, err)
	}
	var names []string
	for _, item := range list.Items {
		names = append(names, item.Metadata.Name)
	}
	return names, nil
}

func (d *doomed) path() string { return d.kind.Path(d.namespace, d.name) }

func (d *doomed) delete(ctx context.Context, client *remote.Client, f deleteFlags) error {
	if f.dryRun == "client" {
		_, err := client.Do(ctx, remote.Request{Path: d.path()})
		return err
	}
	q := url.Values{}
	if f.dryRun == "server" {
		q.Set("dryRun", "All")
	}
	answer, err := client.Do(ctx, remote.Request{Method: http.MethodDelete, Path: d.path(), Query: q,
		Type: "application/json", Body: []byte(`{"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background"}`)})
	if err != nil {
		return err
	}
	d.uid = uidOf(answer.Body)
	return nil
}

// uidOf takes the uid out of an object, or out of the Status that answers a
// delete.
func uidOf(body []byte) string {
	var o struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
		Details struct {
			UID string `json:"uid"`
		} `json:"details"`
	}
	if json.Unmarshal(body, &o) != nil {
		return ""
	}
	return o.Metadata.UID + o.Details.UID
}

// waitGone waits until none of the objects is there any more. One that was
// made anew under the same name counts as gone.
func (a *app) waitGone(ctx context.Context, client *remote.Client, list []*doomed, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	start, told := time.Now(), false
	for _, d := range list {
		for wait := 10 * time.Millisecond; ; wait = min(wait*2, time.Second) {
			answer, err := client.Do(ctx, remote.Request{Path: d.path(),
				Accept: "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"})
			if remote.IsNotFound(err) {
				break
			}
			if err == nil && d.uid != "" && uidOf(answer.Body) != d.uid {
				break
			}
			if err != nil && ctx.Err() == nil {
				return err
			}
			if !told && time.Since(start) > 2*time.Second {
				a.say("waiting until %s %s is gone...", d.kind.Display(), d.name)
				told = true
			}
			select {
			case <-ctx.Done():
				if errors.Is(context.Cause(ctx), errTooLong) {
					return exitTimeout(fmt.Sprintf("see what holds it (finalizers) with `moire get %s %s -o yaml`", d.kind.Plural, d.name),
						"%s %q is deleted, but not gone after %s", d.kind.Display(), d.name, limit)
				}
				return ctx.Err()
			case <-time.After(wait):
			}
		}
	}
	return nil
}

var errTooLong = errors.New("waited too long")
