package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

// event is one line of a watch.
type event struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// watch shows the collection and then every change until it is interrupted. A
// watch that the server ends is continued where it ended.
func (g *getting) watch(ctx context.Context, t target) error {
	if len(t.names) == 1 {
		g.flags.fields = "metadata.name=" + t.names[0]
		t.names = nil
	}
	w := &watching{getting: g, target: t}
	for {
		err := w.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil // interrupted: what there was has been shown
		case remote.IsGone(err):
			w.version = "" // too old: list again
		case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// watching is one `get -w`.
type watching struct {
	*getting
	target  target
	version string // where to go on; empty: list first
	columns []show.Column
	widths  []int
	// seen is the version of each object that was shown or passed over, so
	// that a list after a broken watch shows only what is new; nil: no list
	// was made yet.
	seen map[string]string
}

// fresh says whether this state of the object was not shown yet, and remembers
// it.
func (w *watching) fresh(m show.Meta) bool {
	key := m.Namespace + "/" + m.Name
	if m.ResourceVersion != "" && w.seen[key] == m.ResourceVersion {
		return false
	}
	w.seen[key] = m.ResourceVersion
	return true
}

func (w *watching) tabular() bool {
	return w.format.Kind == show.AsTable || w.format.Kind == show.Wide
}

func (w *watching) accept() string {
	if w.tabular() {
		return show.TableAccept
	}
	return "application/json"
}

func (w *watching) once(ctx context.Context) error {
	if w.version == "" {
		if err := w.list(ctx); err != nil {
			return err
		}
	}
	q := w.query(w.tabular())
	q.Set("watch", "true")
	q.Set("resourceVersion", w.version)
	q.Set("allowWatchBookmarks", "true")
	body, _, err := w.client.Stream(ctx, remote.Request{Path: w.target.kind.Path(w.namespace(w.target.kind), ""), Query: q, Accept: w.accept()})
	if err != nil {
		return err
	}
	defer body.Close()
	d := json.NewDecoder(body)
	for {
		var e event
		if err := d.Decode(&e); err != nil {
			return err
		}
		if err := w.event(e); err != nil {
			return err
		}
	}
}

// list prints what there is now, once, and remembers its version.
func (w *watching) list(ctx context.Context) error {
	quiet := w.flags.watchOnly && w.seen == nil
	if w.seen == nil {
		w.seen = map[string]string{}
	}
	answer, err := w.client.Do(ctx, remote.Request{Path: w.target.kind.Path(w.namespace(w.target.kind), ""), Query: w.query(w.tabular()), Accept: w.accept()})
	if err != nil {
		return err
	}
	if w.tabular() {
		t, err := show.ReadTable(answer.Body)
		if err != nil {
			return err
		}
		w.version, w.columns = t.Metadata.ResourceVersion, t.Columns
		t.Rows = slices.DeleteFunc(t.Rows, func(r show.Row) bool { return !w.fresh(r.Object.Metadata) || quiet })
		return w.rows(t)
	}
	var list struct {
		Metadata show.Meta         `json:"metadata"`
		Items    []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(answer.Body, &list); err != nil {
		return fmt.Errorf("the server's list cannot be read: %w", err)
	}
	w.version = list.Metadata.ResourceVersion
	for _, item := range list.Items {
		var o struct {
			Metadata show.Meta `json:"metadata"`
		}
		if err := json.Unmarshal(item, &o); err != nil {
			return fmt.Errorf("the server's list cannot be read: %w", err)
		}
		if !w.fresh(o.Metadata) || quiet {
			continue
		}
		if err := w.object(item); err != nil {
			return err
		}
	}
	return nil
}

func (w *watching) event(e event) error {
	if e.Type == "ERROR" {
		var status struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
			Reason  string `json:"reason"`
		}
		if err := json.Unmarshal(e.Object, &status); err != nil {
			return fmt.Errorf("the watch failed: %w", err)
		}
		return &remote.Refused{Method: http.MethodGet, HTTP: status.Code, Reason: status.Reason, Message: status.Message}
	}
	if !w.tabular() {
		var o struct {
			Metadata show.Meta `json:"metadata"`
		}
		if err := json.Unmarshal(e.Object, &o); err != nil {
			return fmt.Errorf("the watch cannot be read: %w", err)
		}
		w.version = o.Metadata.ResourceVersion
		if e.Type == "BOOKMARK" || !w.fresh(o.Metadata) && e.Type != "DELETED" {
			return nil
		}
		return w.object(e.Object)
	}
	t, err := show.ReadTable(e.Object)
	if err != nil {
		return err
	}
	for _, r := range t.Rows {
		if v := r.Object.Metadata.ResourceVersion; v != "" {
			w.version = v
		}
	}
	if e.Type == "BOOKMARK" {
		return nil
	}
	t.Rows = slices.DeleteFunc(t.Rows, func(r show.Row) bool { return !w.fresh(r.Object.Metadata) && e.Type != "DELETED" })
	if len(t.Columns) > 0 {
		w.columns = t.Columns
	} else {
		t.Columns = w.columns
	}
	return w.rows(t)
}

// rows prints rows with the column widths of the first table, so that later
// lines stand below them.
func (w *watching) rows(t *show.Table) error {
	if len(t.Rows) == 0 {
		return nil
	}
	grid := t.Grid(w.layout(w.target.kind))
	header := w.widths == nil && !w.flags.noHeaders
	if w.widths == nil {
		w.widths = grid.Widths(true)
	}
	return grid.WriteAt(w.app.out, w.widths, header, w.app.paint().Cell)
}

func (w *watching) object(body []byte) error {
	value, err := show.Decode(body)
	if err != nil {
		return err
	}
	object, _ := value.(map[string]any)
	if w.format.Kind == show.Name {
		meta, _ := object["metadata"].(map[string]any)
		return w.app.print("%s/%v", w.target.kind.Display(), meta["name"])
	}
	if object["kind"] == nil {
		object["apiVersion"], object["kind"] = w.target.kind.APIVersion(), w.target.kind.Kind
	}
	if !w.flags.managed {
		show.HideManagedFields(value)
	}
	if w.format.Kind == show.YAML {
		if err := w.app.print("---"); err != nil {
			return err
		}
	}
	var b strings.Builder
	if err := w.format.Write(&b, value); err != nil {
		return err
	}
	if w.format.Kind == show.JSONPath {
		b.WriteByte('\n')
	}
	_, err = io.WriteString(w.app.out, b.String())
	return err
}

// exitTimeout says that waiting ended without what was waited for.
func exitTimeout(fix, format string, args ...any) error {
	return fault.New(fault.Timeout, fix, format, args...)
}
