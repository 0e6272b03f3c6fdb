package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"moire.dev/moire/snapshot/l7"
)

// decode puts a value of the text into a value of a Config. On a Problem it
// leaves it as it is and goes on beside it.
func (r *reader) decode(n *yaml.Node, into reflect.Value, field string, depth int) {
	if r.values--; r.values < 0 || depth > maxDepth {
		if !r.full {
			r.full = true
			r.broke(field)
			r.problem(n.Line, field, "write aliases out, or less of it", "the file is nested too deeply or has too many values")
		}
		return
	}
	n = follow(n)
	if isNull(n) {
		r.broke(field)
		r.problem(r.line(field), field, "give it a value or remove it", "it has no value")
		return
	}
	if into.Kind() == reflect.Pointer {
		into.Set(reflect.New(into.Type().Elem()))
		into = into.Elem()
	}
	if u, ok := into.Addr().Interface().(encoding.TextUnmarshaler); ok {
		r.text(n, u, field)
		return
	}
	switch into.Kind() {
	case reflect.Struct:
		r.structure(n, into, field, depth)
	case reflect.Map:
		r.table(n, into, field, depth)
	case reflect.Slice:
		r.list(n, into, field, depth)
	default:
		r.scalar(n, into, field)
	}
}

// broke notes a field that was not understood.
func (r *reader) broke(field string) { r.broken = append(r.broken, field) }

func (r *reader) wrong(n *yaml.Node, field, want, fix string) {
	r.broke(field)
	r.problem(n.Line, field, fix, "this must be %s, but is %s", want, shape(n))
}

func (r *reader) scalar(n *yaml.Node, into reflect.Value, field string) {
	plain := n.Kind == yaml.ScalarNode
	switch into.Kind() {
	case reflect.String:
		if plain && (n.Tag == "!!str" || n.Tag == "!!timestamp") {
			into.SetString(n.Value)
			return
		}
		fix := "write one value"
		if plain {
			fix = fmt.Sprintf("put it in quotes: %q", clip(n.Value))
		}
		r.wrong(n, field, "text", fix)
	case reflect.Bool:
		if b, err := strconv.ParseBool(strings.ToLower(n.Value)); plain && n.Tag == "!!bool" && err == nil {
			into.SetBool(b)
			return
		}
		r.wrong(n, field, "true or false", "write true or false, without quotes")
	case reflect.Float64:
		var f float64
		if plain && (n.Tag == "!!int" || n.Tag == "!!float") && n.Decode(&f) == nil {
			into.SetFloat(f)
			return
		}
		r.wrong(n, field, "a number", "write a number, without quotes")
	case reflect.Uint32:
		var u uint64
		if plain && n.Tag == "!!int" && n.Decode(&u) == nil && !into.OverflowUint(u) {
			into.SetUint(u)
			return
		}
		r.wrong(n, field, "a whole number that is not negative", "write a whole number, without quotes")
	default:
		var i int64
		if plain && n.Tag == "!!int" && n.Decode(&i) == nil && !into.OverflowInt(i) {
			into.SetInt(i)
			return
		}
		r.wrong(n, field, "a whole number", "write a whole number, without quotes")
	}
}

// text is a duration.
func (r *reader) text(n *yaml.Node, into encoding.TextUnmarshaler, field string) {
	const fix = "write for example 500ms, 10s or 1m30s"
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		r.wrong(n, field, "a duration with its unit", fix)
		return
	}
	if err := into.UnmarshalText([]byte(n.Value)); err != nil {
		r.broke(field)
		r.problem(n.Line, field, fix, "%q is not a duration", clip(n.Value))
	}
}

// entries walks a map; each key once.
func (r *reader) entries(n *yaml.Node, field string, do func(key string, k, v *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := follow(n.Content[i]), n.Content[i+1]
		switch {
		case k.Tag == "!!merge":
			r.broke(join(field, "<<"))
			r.problem(k.Line, join(field, "<<"), "write the fields out", "merge keys are not supported")
			continue
		case k.Kind != yaml.ScalarNode:
			r.broke(join(field, "?"))
			r.problem(k.Line, field, "write name: value", "the name of a field must be text")
			continue
		}
		if first, twice := seen[k.Value]; twice {
			r.problem(k.Line, join(field, clip(k.Value)), "remove one of them", "the field is already on line %d", first)
			continue
		}
		seen[k.Value] = k.Line
		do(k.Value, k, v)
	}
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}

func (r *reader) structure(n *yaml.Node, into reflect.Value, field string, depth int) {
	if n.Kind != yaml.MappingNode {
		r.wrong(n, field, "a map of fields", "indent the fields below it")
		return
	}
	names, index := fields(into.Type())
	r.entries(n, field, func(key string, k, v *yaml.Node) {
		at := join(field, key)
		i, ok := index[key]
		if !ok {
			fix := "possible are " + strings.Join(names, ", ")
			if near := l7.Nearest(key, names); near != "" {
				fix = "did you mean " + near + "?"
			}
			r.broke(at)
			r.problem(k.Line, at, fix, "there is no field %q here", clip(key))
			return
		}
		r.lines[at] = k.Line
		r.decode(v, into.Field(i), at, depth+1)
	})
}

// ofAgent are the fields that only an agent gives, with the sockets to them
// (proxy/door): in a file they would mean nothing.
var ofAgent = []string{"mesh", "view", "spiffe"}

// fields are the names of a struct in a file, sorted, and which field each is.
func fields(t reflect.Type) ([]string, map[string]int) {
	index := make(map[string]int, t.NumField())
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if slices.Contains(ofAgent, name) {
			continue
		}
		index[name] = i
		names = append(names, name)
	}
	slices.Sort(names)
	return names, index
}

func (r *reader) table(n *yaml.Node, into reflect.Value, field string, depth int) {
	if n.Kind != yaml.MappingNode {
		r.wrong(n, field, "a map", "write key: value below it")
		return
	}
	out := reflect.MakeMap(into.Type())
	r.entries(n, field, func(key string, k, v *yaml.Node) {
		at := field + "[" + key + "]"
		r.lines[at] = k.Line
		value := reflect.New(into.Type().Elem()).Elem()
		r.decode(v, value, at, depth+1)
		out.SetMapIndex(reflect.ValueOf(key), value)
	})
	into.Set(out)
}

func (r *reader) list(n *yaml.Node, into reflect.Value, field string, depth int) {
	if n.Kind != yaml.SequenceNode {
		r.wrong(n, field, "a list", "write each entry as - value")
		return
	}
	out := reflect.MakeSlice(into.Type(), len(n.Content), len(n.Content))
	for i, e := range n.Content {
		at := field + "[" + strconv.Itoa(i) + "]"
		r.lines[at] = e.Line
		r.decode(e, out.Index(i), at, depth+1)
	}
	into.Set(out)
}

// follow follows an alias.
func follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// shape names what a value is.
func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!bool":
		return n.Value
	case "!!str":
		return fmt.Sprintf("the text %q", clip(n.Value))
	}
	return fmt.Sprintf("%q", clip(n.Value))
}
