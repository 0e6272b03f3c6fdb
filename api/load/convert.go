package load

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"moire.dev/moire/api/v1alpha1"
)

// converter turns the nodes of one object into plain values, checking them
// against the Go type and remembering lines.
type converter struct {
	*reader
	item *Item
	full bool // a limit was hit and told
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// convert checks one value. On a Problem it returns nil and goes on beside it.
func (c *converter) convert(n *yaml.Node, t reflect.Type, path string, depth int) any {
	if !c.within(n, path, depth) {
		return nil
	}
	n = follow(n)
	if n == nil || isNull(n) {
		return nil
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Interface || reflect.PointerTo(t).Implements(unmarshaler) {
		return c.free(n, path, depth)
	}
	switch t.Kind() {
	case reflect.Struct:
		return c.structure(n, t, path, depth)
	case reflect.Map:
		return c.table(n, t, path, depth)
	case reflect.Slice:
		return c.list(n, t, path, depth)
	case reflect.String:
		if n.Kind == yaml.ScalarNode && (n.Tag == "!!str" || n.Tag == "!!timestamp") {
			return n.Value
		}
		return c.wrong(n, path, "text", quoted(n))
	case reflect.Bool:
		if b, err := strconv.ParseBool(strings.ToLower(n.Value)); n.Kind == yaml.ScalarNode && n.Tag == "!!bool" && err == nil {
			return b
		}
		return c.wrong(n, path, "true or false", "write true or false, without quotes")
	case reflect.Int, reflect.Int32, reflect.Int64:
		var i int64
		if n.Kind == yaml.ScalarNode && n.Tag == "!!int" && n.Decode(&i) == nil && !reflect.Zero(t).OverflowInt(i) {
			return i
		}
		return c.wrong(n, path, "a whole number", "write a whole number, without quotes")
	}
	return c.free(n, path, depth)
}

// within keeps the limits: aliases may multiply and contain themselves.
func (c *converter) within(n *yaml.Node, path string, depth int) bool {
	if c.nodes--; c.nodes >= 0 && depth <= maxDepth {
		return true
	}
	if !c.full {
		c.full = true
		c.problem(c.item, n.Line, v1alpha1.CodeTooMuch, path, "the object is nested too deeply or has too many values", "write aliases out, or split the file")
	}
	return false
}

func (c *converter) wrong(n *yaml.Node, path, want, fix string) any {
	c.problem(c.item, n.Line, v1alpha1.CodeWrongType, path, fmt.Sprintf("this must be %s, but is %s", want, shape(n)), fix)
	return nil
}

// shape names what a node is.
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

func quoted(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return fmt.Sprintf("put it in quotes: %q", clip(n.Value))
	}
	return "write one value"
}

// entries walks a mapping; each key once.
func (c *converter) entries(n *yaml.Node, path string, do func(key string, k, v *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := follow(n.Content[i]), n.Content[i+1]
		switch {
		case k.Tag == "!!merge":
			c.problem(c.item, k.Line, v1alpha1.CodeUnknownField, join(path, "<<"), "merge keys are not supported", "write the fields out")
			continue
		case k.Kind != yaml.ScalarNode:
			c.problem(c.item, k.Line, v1alpha1.CodeWrongType, path, "the name of a field must be text", "write name: value")
			continue
		}
		if first, twice := seen[k.Value]; twice {
			c.problem(c.item, k.Line, v1alpha1.CodeDuplicateKey, join(path, k.Value), fmt.Sprintf("the field is already on line %d", first), "remove one of them")
			continue
		}
		seen[k.Value] = k.Line
		do(k.Value, k, v)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (c *converter) structure(n *yaml.Node, t reflect.Type, path string, depth int) any {
	if n.Kind != yaml.MappingNode {
		return c.wrong(n, path, "a map of fields", "indent the fields below it")
	}
	known := fields(t)
	out := make(map[string]any, len(n.Content)/2)
	c.entries(n, path, func(key string, k, v *yaml.Node) {
		at := join(path, key)
		ft, ok := known[key]
		if !ok {
			c.problem(c.item, k.Line, v1alpha1.CodeUnknownField, at, fmt.Sprintf("there is no field %q", clip(key)), didYouMean(key, names(known), "possible are "+strings.Join(names(known), ", ")))
			return
		}
		c.item.lines[at] = k.Line
		value := c.convert(v, ft, at, depth+1)
		if value == nil {
			return
		}
		if empty(value) && slices.Contains(neverEmpty[t], key) {
			c.problem(c.item, k.Line, v1alpha1.CodeChoice, at, fmt.Sprintf("%v is no value for it", quoteEmpty(value)), "leave the field out or give it a value")
			return
		}
		out[key] = value
	})
	return out
}

func empty(v any) bool { return v == "" || v == int64(0) }

func quoteEmpty(v any) string {
	if v == "" {
		return `""`
	}
	return fmt.Sprint(v)
}

// neverEmpty lists fields in which an empty value, other than none at all, is
// refused by the API server too.
var neverEmpty = map[reflect.Type][]string{
	reflect.TypeFor[v1alpha1.NetworkSpec]():     {"default", "mtu", "metadata"},
	reflect.TypeFor[v1alpha1.WorkloadSpec]():    {"account"},
	reflect.TypeFor[v1alpha1.Interface]():       {"network", "mac"},
	reflect.TypeFor[v1alpha1.PolicySpec]():      {"tier", "mode"},
	reflect.TypeFor[v1alpha1.Rule]():            {"name", "action"},
	reflect.TypeFor[v1alpha1.Peer]():            {"cidr", "name"},
	reflect.TypeFor[v1alpha1.Port]():            {"protocol", "port", "endPort"},
	reflect.TypeFor[v1alpha1.Outside]():         {"mode"},
	reflect.TypeFor[v1alpha1.DNS]():             {"zone", "ttlSeconds", "order"},
	reflect.TypeFor[v1alpha1.DNSRecord]():       {"name", "type", "data", "ttlSeconds"},
	reflect.TypeFor[v1alpha1.Limit]():           {"egress", "ingress"},
	reflect.TypeFor[v1alpha1.Firewall]():        {"mode"},
	reflect.TypeFor[v1alpha1.FirewallRule]():    {"name"},
	reflect.TypeFor[v1alpha1.LinkSpec]():        {"onFailure"},
	reflect.TypeFor[v1alpha1.LinkEnd]():         {"network"},
	reflect.TypeFor[v1alpha1.Translation]():     {"prefix", "as"},
	reflect.TypeFor[v1alpha1.Function]():        {"name", "mode"},
	reflect.TypeFor[v1alpha1.HealthCheck]():     {"type", "port", "intervalSeconds", "timeoutSeconds", "failures", "successes"},
	reflect.TypeFor[v1alpha1.ServiceSpec]():     {"externalName", "locality"},
	reflect.TypeFor[v1alpha1.ServiceNetwork]():  {"network"},
	reflect.TypeFor[v1alpha1.ServicePort]():     {"name", "protocol", "port", "targetPort", "appProtocol"},
	reflect.TypeFor[v1alpha1.ServiceEndpoint](): {"address", "weight"},
	reflect.TypeFor[v1alpha1.FloatingIPSpec]():  {"address"},
	reflect.TypeFor[v1alpha1.FloatingTarget]():  {"workload"},
	reflect.TypeFor[v1alpha1.NetworkRef]():      {"network"},

	reflect.TypeFor[v1alpha1.PolicyTarget]():       {"kind", "name", "sectionName", "port"},
	reflect.TypeFor[v1alpha1.Balancer]():           {"kind", "slowStart", "choices", "ringSize", "decay"},
	reflect.TypeFor[v1alpha1.Outlier]():            {"interval", "baseEjection", "maxEjection", "latencyPercent"},
	reflect.TypeFor[v1alpha1.ActiveCheck]():        {"type", "path", "interval", "timeout", "successes", "failures"},
	reflect.TypeFor[v1alpha1.BackendLimits]():      {"connections", "pending", "requests", "retries"},
	reflect.TypeFor[v1alpha1.RetryBudget]():        {"percent", "minimum"},
	reflect.TypeFor[v1alpha1.BackendConnections](): {"connectTimeout", "idleTimeout", "maxRequests", "proxyProtocol"},
	reflect.TypeFor[v1alpha1.BackendTLS]():         {"hostname", "minVersion"},
	reflect.TypeFor[v1alpha1.BackendLocality]():    {"overprovisionPercent"},
	reflect.TypeFor[v1alpha1.Retry]():              {"attempts", "backoff", "bodyBytes"},
	reflect.TypeFor[v1alpha1.Hedge]():              {"delay", "most"},
	reflect.TypeFor[v1alpha1.RequestTimeouts]():    {"request", "backendRequest"},
	reflect.TypeFor[v1alpha1.RateLimit]():          {"requests", "per", "burst", "by"},
	reflect.TypeFor[v1alpha1.HashOn]():             {"header", "cookie", "query"},
	reflect.TypeFor[v1alpha1.FaultDelay]():         {"duration", "percent", "perMille"},
	reflect.TypeFor[v1alpha1.FaultAbort]():         {"status", "grpcStatus", "percent", "perMille"},
	reflect.TypeFor[v1alpha1.FaultHeader]():        {"type", "name", "value"},
}

func (c *converter) table(n *yaml.Node, t reflect.Type, path string, depth int) any {
	if n.Kind != yaml.MappingNode {
		return c.wrong(n, path, "a map", "write key: value below it")
	}
	out := make(map[string]any, len(n.Content)/2)
	c.entries(n, path, func(key string, k, v *yaml.Node) {
		at := path + "[" + key + "]"
		c.item.lines[at] = k.Line
		if isNull(follow(v)) && t.Elem().Kind() == reflect.String {
			c.wrong(follow(v), at, "text", `write "" for an empty value`)
			return
		}
		out[key] = c.convert(v, t.Elem(), at, depth+1)
	})
	return out
}

func (c *converter) list(n *yaml.Node, t reflect.Type, path string, depth int) any {
	if n.Kind != yaml.SequenceNode {
		return c.wrong(n, path, "a list", "write each entry as - value")
	}
	out := make([]any, 0, len(n.Content))
	for i, e := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		c.item.lines[at] = e.Line
		if isNull(follow(e)) {
			c.wrong(e, at, "a value", "remove the empty entry")
			continue
		}
		out = append(out, c.convert(e, t.Elem(), at, depth+1))
	}
	return out
}

// free takes a value of any shape, without remembering lines inside.
func (c *converter) free(n *yaml.Node, path string, depth int) any {
	switch n.Kind {
	case yaml.MappingNode:
		out := make(map[string]any, len(n.Content)/2)
		c.entries(n, path, func(key string, _, v *yaml.Node) { out[key] = c.inside(v, path, depth) })
		return out
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		for _, e := range n.Content {
			out = append(out, c.inside(e, path, depth))
		}
		return out
	}
	var v any
	if n.Tag == "!!str" || n.Tag == "!!timestamp" {
		return n.Value
	}
	if err := n.Decode(&v); err != nil {
		return c.wrong(n, path, "a value", "correct it")
	}
	return v
}

func (c *converter) inside(n *yaml.Node, path string, depth int) any {
	if !c.within(n, path, depth+1) || isNull(follow(n)) {
		return nil
	}
	return c.free(follow(n), path, depth+1)
}
