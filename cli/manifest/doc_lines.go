package manifest

import (
	"encoding/json"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Doc is one object of a file.
type Doc struct {
	File       string
	Line       int // where it starts
	APIVersion string
	Kind       string
	Namespace  string
	Name       string
	// Object is what will be sent.
	Object map[string]any

	node *yaml.Node
}

// JSON is the object as JSON.
func (d *Doc) JSON() ([]byte, error) { return json.Marshal(d.Object) }

// SetNamespace puts the object into a project.
func (d *Doc) SetNamespace(namespace string) {
	d.Namespace = namespace
	meta, ok := d.Object["metadata"].(map[string]any)
	if !ok {
		meta = map[string]any{}
		d.Object["metadata"] = meta
	}
	meta["namespace"] = namespace
}

// String is "Kind namespace/name" or "Kind name".
func (d *Doc) String() string {
	if d.Namespace == "" {
		return d.Kind + " " + d.Name
	}
	return d.Kind + " " + d.Namespace + "/" + d.Name
}

// LineOf is the line on which the field stands, or of the nearest part of the
// path that exists. Paths are written as the server writes them:
// spec.prefixes[1], .spec.ingress[0].from, metadata.labels[moire.dev/domain].
func (d *Doc) LineOf(field string) int {
	line := d.Line
	at := resolve(d.node)
	for _, step := range steps(field) {
		var next *yaml.Node
		switch at.Kind {
		case yaml.MappingNode:
			if key := keyNode(at, step); key != nil {
				line = key.Line
			}
			next = child(at, step)
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(at.Content) {
				next = at.Content[i]
				line = next.Line
			}
		}
		if next == nil {
			return line
		}
		at = resolve(next)
	}
	return line
}

// steps splits a field path.
func steps(field string) []string {
	var out []string
	var step strings.Builder
	flush := func() {
		if step.Len() > 0 {
			out = append(out, strings.Trim(step.String(), `"`))
			step.Reset()
		}
	}
	inside := false
	for _, r := range field {
		switch {
		case inside && r == ']':
			inside = false
			flush()
		case inside:
			step.WriteRune(r)
		case r == '.':
			flush()
		case r == '[':
			flush()
			inside = true
		default:
			step.WriteRune(r)
		}
	}
	flush()
	return out
}

// keyNode is the key of a mapping, nil if it is not there.
func keyNode(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if resolve(m.Content[i]).Value == key {
			return m.Content[i]
		}
	}
	return nil
}

// child is the value of a key of a mapping, nil if it is not there.
func child(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if resolve(m.Content[i]).Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}
