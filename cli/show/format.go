package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"

	"moire.dev/moire/cli/fault"
)

// Formats of -o that show whole objects.
const (
	AsTable  = ""
	Wide     = "wide"
	JSON     = "json"
	YAML     = "yaml"
	Name     = "name"
	JSONPath = "jsonpath"
)

// Format is a parsed -o flag.
type Format struct {
	Kind     string
	Template string // of JSONPath
}

// ParseFormat checks the value of -o; allowed lists the kinds that the command
// has, the table excluded.
func ParseFormat(flag string, allowed ...string) (Format, error) {
	kind, template, found := strings.Cut(flag, "=")
	f := Format{Kind: kind, Template: template}
	ok := kind == AsTable
	for _, a := range allowed {
		ok = ok || a == kind
	}
	if !ok || found != (kind == JSONPath) {
		list := strings.Join(allowed, ", ")
		list = strings.ReplaceAll(list, JSONPath, "jsonpath={.path}")
		return f, fault.Usagef("use one of: "+list, "unknown output format -o %s", flag)
	}
	if kind == JSONPath {
		if _, err := parsePath(f.Template); err != nil {
			return f, err
		}
	}
	return f, nil
}

// parsePath accepts {.a.b}, .a.b and a.b, like kubectl.
func parsePath(template string) (*jsonpath.JSONPath, error) {
	text := template
	if !strings.Contains(text, "{") {
		text = "{." + strings.TrimPrefix(text, ".") + "}"
	}
	p := jsonpath.New("out").AllowMissingKeys(true)
	if err := p.Parse(text); err != nil {
		return nil, fault.Usagef("write it like jsonpath='{.items[*].metadata.name}'", "jsonpath %q: %v", template, err)
	}
	return p, nil
}

// Decode reads JSON and keeps numbers as they were written.
func Decode(body []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("the server's answer is not JSON: %w", err)
	}
	return v, nil
}

// Write writes a decoded value as JSON, YAML or through a JSONPath.
func (f Format) Write(w io.Writer, value any) error {
	switch f.Kind {
	case JSON:
		return writeJSON(w, value)
	case YAML:
		return writeYAML(w, value)
	case JSONPath:
		p, err := parsePath(f.Template)
		if err != nil {
			return err
		}
		// jsonpath compares and filters plain numbers only.
		if err := p.Execute(w, plainNumbers(value)); err != nil {
			return fault.Usagef("look at the fields with -o json", "jsonpath %q: %v", f.Template, err)
		}
		return nil
	}
	return fmt.Errorf("format %q does not show objects", f.Kind)
}

func writeJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	return e.Encode(value)
}

func writeYAML(w io.Writer, value any) error {
	text, err := ToYAML(value)
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

// ToYAML is value as YAML with sorted keys.
func ToYAML(value any) ([]byte, error) { return yaml.Marshal(plainNumbers(value)) }

// plainNumbers replaces json.Number by int64 or float64.
func plainNumbers(value any) any {
	switch v := value.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		n, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return n
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = plainNumbers(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plainNumbers(e)
		}
		return out
	}
	return value
}

// HideManagedFields drops metadata.managedFields of an object or of the items
// of a list, in place.
func HideManagedFields(value any) {
	object, ok := value.(map[string]any)
	if !ok {
		return
	}
	if meta, ok := object["metadata"].(map[string]any); ok {
		delete(meta, "managedFields")
	}
	if items, ok := object["items"].([]any); ok {
		for _, item := range items {
			HideManagedFields(item)
		}
	}
}
