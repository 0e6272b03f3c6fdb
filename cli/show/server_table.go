package show

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// TableAccept asks the server for a Table, and for the plain object from
// servers that have none.
const TableAccept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

// Column is one column of a server Table.
type Column struct {
	Name     string `json:"name"`
	Priority int    `json:"priority"`
}

// Row is one row of a server Table.
type Row struct {
	Cells  []any `json:"cells"`
	Object struct {
		Metadata Meta `json:"metadata"`
	} `json:"object"`
}

// Meta is the part of the metadata that tables show.
type Meta struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	ResourceVersion string            `json:"resourceVersion"`
	Labels          map[string]string `json:"labels"`
}

// Table is a server Table.
type Table struct {
	Kind     string `json:"kind"`
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Columns []Column `json:"columnDefinitions"`
	Rows    []Row    `json:"rows"`
}

// ReadTable reads a server Table.
func ReadTable(body []byte) (*Table, error) {
	t := new(Table)
	if err := json.Unmarshal(body, t); err != nil {
		return nil, fmt.Errorf("the server's table cannot be read: %w", err)
	}
	if t.Kind != "Table" {
		return nil, fmt.Errorf("the server answered with a %s instead of a Table", t.Kind)
	}
	return t, nil
}

// Layout says how a Table becomes a Grid.
type Layout struct {
	Wide      bool   // also columns with a priority above 0
	Namespace bool   // a first column NAMESPACE
	Labels    bool   // a last column LABELS
	Prefix    string // put before the name, such as network.moire.dev/
}

// Grid lays the table out. Columns may be given from an earlier Table when t
// comes from a watch and has none.
func (t *Table) Grid(l Layout) *Grid {
	g := new(Grid)
	if l.Namespace {
		g.Header = append(g.Header, "NAMESPACE")
	}
	var shown []int
	for i, c := range t.Columns {
		if c.Priority == 0 || l.Wide {
			shown = append(shown, i)
			g.Header = append(g.Header, strings.ToUpper(c.Name))
		}
	}
	if l.Labels {
		g.Header = append(g.Header, "LABELS")
	}
	g.Rows = make([][]string, 0, len(t.Rows))
	for i := range t.Rows {
		g.Rows = append(g.Rows, t.Rows[i].line(shown, l))
	}
	return g
}

func (r *Row) line(shown []int, l Layout) []string {
	line := make([]string, 0, len(shown)+2)
	if l.Namespace {
		line = append(line, r.Object.Metadata.Namespace)
	}
	for n, i := range shown {
		text := ""
		if i < len(r.Cells) {
			text = cellText(r.Cells[i])
		}
		if n == 0 {
			text = l.Prefix + text
		}
		line = append(line, text)
	}
	if l.Labels {
		line = append(line, labelText(r.Object.Metadata.Labels))
	}
	return line
}

func cellText(cell any) string {
	switch v := cell.(type) {
	case nil:
		return ""
	case string:
		return oneLine(v)
	case float64:
		if v == float64(int64(v)) {
			return fmt.Sprint(int64(v))
		}
	}
	return oneLine(fmt.Sprint(cell))
}

func labelText(labels map[string]string) string {
	if len(labels) == 0 {
		return "<none>"
	}
	pairs := make([]string, 0, len(labels))
	for k, v := range labels {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
