package cli

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

func (g *getting) layout(k remote.Kind) show.Layout {
	l := show.Layout{
		Wide:      g.format.Kind == show.Wide,
		Namespace: g.flags.all && k.Namespaced,
		Labels:    g.flags.labels,
	}
	if g.many {
		l.Prefix = k.Display() + "/"
	}
	return l
}

// tables prints one table for each target that has rows.
func (g *getting) tables(ctx context.Context, targets []target) error {
	var failed error
	printed := 0
	for _, t := range targets {
		var whole *show.Table
		err := g.fetch(ctx, t, show.TableAccept, true, func(body []byte) error {
			part, err := show.ReadTable(body)
			if err != nil {
				return err
			}
			if whole == nil {
				whole = part
			} else {
				whole.Rows = append(whole.Rows, part.Rows...)
			}
			return nil
		})
		if err := unlessTold(err, &failed); err != nil {
			return err
		}
		if whole == nil || len(whole.Rows) == 0 {
			continue
		}
		if printed++; printed > 1 && !g.flags.noHeaders {
			if err := g.app.print(""); err != nil {
				return err
			}
		}
		if err := whole.Grid(g.layout(t.kind)).Write(g.app.out, !g.flags.noHeaders, g.app.paint().Cell); err != nil {
			return err
		}
	}
	if printed == 0 && failed == nil && !g.flags.absentOK {
		g.nothing(targets)
	}
	return failed
}

// nothing says that there is nothing, in kubectl's words.
func (g *getting) nothing(targets []target) {
	for _, t := range targets {
		if t.kind.Namespaced && !g.flags.all {
			g.app.say("No resources found in %s namespace.", g.client.Namespace)
			return
		}
	}
	g.app.say("No resources found")
}

// names prints kind.group/name for each object; the server sends only metadata.
func (g *getting) names(ctx context.Context, targets []target) error {
	var failed error
	for _, t := range targets {
		accept := "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
		if len(t.names) > 0 {
			accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
		}
		err := g.fetch(ctx, t, accept, false, func(body []byte) error {
			var got struct {
				Metadata show.Meta `json:"metadata"`
				Items    []struct {
					Metadata show.Meta `json:"metadata"`
				} `json:"items"`
			}
			if err := json.Unmarshal(body, &got); err != nil {
				return err
			}
			var b strings.Builder
			if got.Metadata.Name != "" {
				b.WriteString(t.kind.Display() + "/" + got.Metadata.Name + "\n")
			}
			for _, item := range got.Items {
				b.WriteString(t.kind.Display() + "/" + item.Metadata.Name + "\n")
			}
			_, err := g.app.out.Write([]byte(b.String()))
			return err
		})
		if err := unlessTold(err, &failed); err != nil {
			return err
		}
	}
	return failed
}

// objects prints whole objects: one as itself, more as a List.
func (g *getting) objects(ctx context.Context, targets []target) error {
	var items []any
	var failed error
	single := len(targets) == 1 && len(targets[0].names) == 1
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
			items = append(items, unlist(object, t)...)
			return nil
		})
		if err := unlessTold(err, &failed); err != nil {
			return err
		}
	}
	if single && len(items) == 0 {
		return failed
	}
	var value any = map[string]any{
		"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": ""}, "items": append([]any{}, items...),
	}
	if single {
		value = items[0]
	}
	if !g.flags.managed {
		show.HideManagedFields(value)
	}
	if err := g.format.Write(g.app.out, value); err != nil {
		return err
	}
	return failed
}

// unlist is the items of a list, each with its kind, or the object itself.
func unlist(object map[string]any, t target) []any {
	items, ok := object["items"].([]any)
	if !ok || len(t.names) > 0 {
		return []any{object}
	}
	for _, item := range items {
		if m, ok := item.(map[string]any); ok && m["kind"] == nil {
			m["apiVersion"], m["kind"] = t.kind.APIVersion(), t.kind.Kind
		}
	}
	return items
}

// unlessTold keeps a failure that was already told, so that the other targets
// have their turn and the exit code still says so; any other error ends the
// command.
func unlessTold(err error, failed *error) error {
	var told fault.Exit
	if errors.As(err, &told) {
		*failed = err
		return nil
	}
	return err
}
