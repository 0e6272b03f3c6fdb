package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

func (a *app) describeCommand() *cobra.Command {
	var selector string
	c := &cobra.Command{
		Use:               "describe KIND [NAME...] | KIND/NAME...",
		Short:             "Show objects in full, for people",
		Example:           "  moire describe network front -p shop\n  moire describe wl/web",
		ValidArgsFunction: a.completeObjects,
		RunE: func(c *cobra.Command, args []string) error {
			return a.describe(c.Context(), selector, args)
		},
	}
	c.Flags().StringVarP(&selector, "selector", "l", "", "only objects with these labels")
	return c
}

func (a *app) describe(ctx context.Context, selector string, args []string) error {
	if len(args) == 0 {
		return fault.Usagef("say what, such as: moire describe network NAME", "nothing to describe")
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	targets, err := parseTargets(ctx, client, args)
	if err != nil {
		return err
	}
	g := &getting{app: a, client: client, flags: getFlags{selector: selector}}
	if err := g.check(targets); err != nil {
		return err
	}
	var failed error
	count := 0
	for _, t := range targets {
		err := g.fetch(ctx, t, "application/json", false, func(body []byte) error {
			value, err := show.Decode(body)
			if err != nil {
				return err
			}
			object, ok := value.(map[string]any)
			if !ok {
				return errors.New("the server's answer is not an object")
			}
			for _, item := range unlist(object, t) {
				if count++; count > 1 {
					if err := a.print("\n"); err != nil {
						return err
					}
				}
				if err := a.describeOne(ctx, client, t.kind, item); err != nil {
					return err
				}
			}
			return nil
		})
		if err := unlessTold(err, &failed); err != nil {
			return err
		}
	}
	if count == 0 && failed == nil {
		g.nothing(targets)
	}
	return failed
}

func (a *app) describeOne(ctx context.Context, client *remote.Client, kind remote.Kind, item any) error {
	object, _ := item.(map[string]any)
	meta, _ := object["metadata"].(map[string]any)
	d := &describing{}
	d.pair(0, "Name", meta["name"])
	if kind.Namespaced {
		d.pair(0, "Namespace", meta["namespace"])
	}
	d.words("Labels", meta["labels"])
	d.words("Annotations", meta["annotations"])
	d.pair(0, "API Version", object["apiVersion"])
	d.pair(0, "Kind", object["kind"])
	d.pair(0, "Created", meta["creationTimestamp"])
	if meta["deletionTimestamp"] != nil {
		d.pair(0, "Terminating since", meta["deletionTimestamp"])
	}
	for _, key := range sortedKeys(object) {
		if !slices.Contains([]string{"metadata", "apiVersion", "kind"}, key) {
			d.field(0, key, object[key])
		}
	}
	if err := d.write(a.out); err != nil {
		return err
	}
	if kind.Kind == "Network" && kind.Group == "moire.dev" {
		return a.describeMembers(ctx, client, meta)
	}
	return nil
}

// describeMembers lists the Workloads of a Network below its description.
func (a *app) describeMembers(ctx context.Context, client *remote.Client, meta map[string]any) error {
	name, _ := meta["name"].(string)
	project, _ := meta["namespace"].(string)
	kind, err := client.Find(ctx, "workloads.moire.dev")
	if err != nil {
		return err
	}
	answer, err := client.Do(ctx, remote.Request{Path: kind.Path(project, ""), Query: url.Values{}})
	if err != nil {
		return err
	}
	var list struct {
		Items []struct {
			Metadata show.Meta `json:"metadata"`
			Status   struct {
				Phase      string `json:"phase"`
				Node       string `json:"node"`
				Interfaces []struct {
					Network   string   `json:"network"`
					Addresses []string `json:"addresses"`
					MAC       string   `json:"mac"`
				} `json:"interfaces"`
			} `json:"status"`
		} `json:"items"`
	}
	if err := json.Unmarshal(answer.Body, &list); err != nil {
		return fmt.Errorf("the list of Workloads cannot be read: %w", err)
	}
	grid := &show.Grid{Header: []string{"  WORKLOAD", "PHASE", "ADDRESSES", "MAC", "NODE"}}
	for _, w := range list.Items {
		for _, i := range w.Status.Interfaces {
			if i.Network == name {
				grid.Rows = append(grid.Rows, []string{"  " + w.Metadata.Name, w.Status.Phase, strings.Join(i.Addresses, ","), i.MAC, w.Status.Node})
			}
		}
	}
	if len(grid.Rows) == 0 {
		return a.print("Workloads:  <none>")
	}
	if err := a.print("Workloads:"); err != nil {
		return err
	}
	return grid.Write(a.out, true, a.paint().Cell)
}

// describing collects lines "key: value" and aligns the values of each block.
type describing struct{ lines []described }

type described struct {
	indent     int
	key, value string
	bullet     bool // the first line of an element of a list
}

func (d *describing) pair(indent int, key string, value any) {
	text := ""
	if value != nil {
		text = show.Plain(fmt.Sprint(value))
	}
	d.lines = append(d.lines, described{indent: indent, key: key, value: text})
}

// words shows a map as key=value, one a line.
func (d *describing) words(title string, value any) {
	m, _ := value.(map[string]any)
	if len(m) == 0 {
		d.pair(0, title, "<none>")
		return
	}
	for i, k := range sortedKeys(m) {
		if i > 0 {
			title = ""
		}
		d.pair(0, title, k+"="+fmt.Sprint(m[k]))
	}
}

// field shows any value below its name.
func (d *describing) field(indent int, name string, value any) {
	switch v := value.(type) {
	case map[string]any:
		d.pair(indent, title(name), nil)
		for _, k := range sortedKeys(v) {
			d.field(indent+2, k, v[k])
		}
	case []any:
		if text, ok := scalars(v); ok {
			d.pair(indent, title(name), text)
			return
		}
		d.pair(indent, title(name), nil)
		for i, e := range v {
			m, ok := e.(map[string]any)
			if !ok {
				d.field(indent+2, fmt.Sprintf("[%d]", i), e)
				continue
			}
			first := len(d.lines)
			for _, k := range sortedKeys(m) {
				d.field(indent+4, k, m[k])
			}
			if len(m) > 0 {
				d.lines[first].bullet = true
			}
		}
	default:
		d.pair(indent, title(name), v)
	}
}

func scalars(list []any) (string, bool) {
	var words []string
	for _, e := range list {
		switch e.(type) {
		case map[string]any, []any:
			return "", false
		}
		words = append(words, fmt.Sprint(e))
	}
	if len(words) == 0 {
		return "<none>", true
	}
	return strings.Join(words, ", "), true
}

// write aligns the values of neighbouring lines with the same indent.
func (d *describing) write(w io.Writer) error {
	var b strings.Builder
	for start := 0; start < len(d.lines); {
		end, width := start, 0
		for end < len(d.lines) && d.lines[end].indent == d.lines[start].indent {
			width = max(width, len(d.lines[end].key)+1)
			end++
		}
		for _, l := range d.lines[start:end] {
			key := l.key
			if key != "" {
				key += ":"
			}
			line := strings.Repeat(" ", l.indent) + key
			if l.bullet {
				line = strings.Repeat(" ", l.indent-2) + "- " + key
			}
			if l.value != "" {
				line += strings.Repeat(" ", width-len(key)+2) + l.value
			}
			b.WriteString(line + "\n")
		}
		start = end
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// title makes "Trust Domain" out of "trustDomain", as kubectl does.
func title(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		switch {
		case i == 0:
			b.WriteRune(unicode.ToUpper(r))
		case unicode.IsUpper(r) && unicode.IsLower(runes[i-1]):
			b.WriteRune(' ')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
