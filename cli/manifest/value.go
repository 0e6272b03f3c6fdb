package manifest

import (
	"strconv"

	"go.yaml.in/yaml/v3"

	"moire.dev/moire/cli/fault"
)

// converter turns YAML nodes into what encoding/json would have made.
type converter struct {
	file   string
	budget *int
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func (c *converter) fail(n *yaml.Node, fix, text string) error {
	return fault.Usagef(fix, "%s:%d: %s", c.file, n.Line, text)
}

// value converts n. The budget bounds aliases that multiply, the depth those
// that contain themselves.
func (c *converter) value(n *yaml.Node, depth int) (any, error) {
	if *c.budget--; *c.budget < 0 {
		return nil, c.fail(n, "split the file, or write aliases out", "too many values in one file")
	}
	if depth > maxDepth {
		return nil, c.fail(n, "nest less", "nested too deeply")
	}
	n = resolve(n)
	switch n.Kind {
	case yaml.MappingNode:
		return c.mapping(n, depth)
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, e := range n.Content {
			v, err := c.value(e, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.ScalarNode:
		return c.scalar(n)
	}
	return nil, c.fail(n, "mend the YAML", "this cannot be read")
}

func (c *converter) mapping(n *yaml.Node, depth int) (any, error) {
	m := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if key.Tag == "!!merge" {
			return nil, c.fail(key, "write the fields out", "merge keys (<<) are not part of the format")
		}
		if key.Kind != yaml.ScalarNode {
			return nil, c.fail(key, "use text as key", "a key must be text")
		}
		if _, twice := m[key.Value]; twice {
			return nil, c.fail(key, "keep one of them", "the key "+strconv.Quote(key.Value)+" is there twice")
		}
		v, err := c.value(n.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		m[key.Value] = v
	}
	return m, nil
}

func (c *converter) scalar(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return nil, c.fail(n, "write true or false", "not a boolean: "+n.Value)
		}
		return b, nil
	case "!!int":
		var i int64
		if err := n.Decode(&i); err != nil {
			return nil, c.fail(n, "write a smaller number, or quote it", "not a 64-bit integer: "+n.Value)
		}
		return i, nil
	case "!!float":
		var f float64
		if err := n.Decode(&f); err != nil || f != f || f-f != 0 {
			return nil, c.fail(n, "write a finite number, or quote it", "not a number: "+n.Value)
		}
		return f, nil
	case "!!str", "!!timestamp":
		// JSON has no time; what looks like one is text.
		return n.Value, nil
	}
	return nil, c.fail(n, "quote it, or drop the tag", "values of type "+n.ShortTag()+" are not part of the format")
}
