package load

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
)

// kind is one kind that may be written.
type kind struct {
	apiVersion string
	namespaced bool
	schema     reflect.Type
	empty      runtime.Object
}

// namespace is what a v1 Namespace may say; only its metadata counts.
type namespace struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              any `json:"spec,omitempty"`
	Status            any `json:"status,omitempty"`
}

func kinds() map[string]kind {
	ours := v1alpha1.GroupVersion.String()
	of := func(namespaced bool, o runtime.Object) kind {
		return kind{ours, namespaced, reflect.TypeOf(o).Elem(), o}
	}
	standard := func(namespaced bool, o runtime.Object) kind {
		return kind{gateway.GroupVersion.String(), namespaced, reflect.TypeOf(o).Elem(), o}
	}
	return map[string]kind{
		"Domain":     of(false, &v1alpha1.Domain{}),
		"Node":       of(false, &v1alpha1.Node{}),
		"Network":    of(true, &v1alpha1.Network{}),
		"Workload":   of(true, &v1alpha1.Workload{}),
		"Policy":     of(true, &v1alpha1.Policy{}),
		"Link":       of(true, &v1alpha1.Link{}),
		"Service":    of(true, &v1alpha1.Service{}),
		"FloatingIP": of(true, &v1alpha1.FloatingIP{}),

		"BackendPolicy":  of(true, &v1alpha1.BackendPolicy{}),
		"FaultPolicy":    of(true, &v1alpha1.FaultPolicy{}),
		"HTTPRoute":      standard(true, &gateway.HTTPRoute{}),
		"GRPCRoute":      standard(true, &gateway.GRPCRoute{}),
		"TLSRoute":       standard(true, &gateway.TLSRoute{}),
		"TCPRoute":       standard(true, &gateway.TCPRoute{}),
		"ReferenceGrant": standard(true, &gateway.ReferenceGrant{}),
		"Gateway":        standard(true, &gateway.Gateway{}),
		"GatewayClass":   standard(false, &gateway.GatewayClass{}),

		"Namespace": {"v1", false, reflect.TypeFor[namespace](), &metav1.PartialObjectMetadata{}},
	}
}

// document reads one document: an object or a list of objects.
func (r *reader) document(n *yaml.Node) {
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		r.problem(nil, n.Line, v1alpha1.CodeWrongType, "", "this is not an object", "write apiVersion, kind and metadata")
		return
	}
	name := text(child(n, "kind"))
	if !strings.HasSuffix(name, "List") {
		r.object(n)
		return
	}
	items := child(n, "items")
	switch {
	case items == nil || isNull(items):
	case follow(items).Kind != yaml.SequenceNode:
		r.problem(nil, items.Line, v1alpha1.CodeWrongType, "items", "the items are not a list", "write each as - apiVersion: ...")
	default:
		for _, it := range follow(items).Content {
			if r.nodes--; r.nodes < 0 {
				r.problem(nil, it.Line, v1alpha1.CodeTooMuch, "items", "the file has too many values", "write aliases out, or split the file")
				return
			}
			it = follow(it)
			if it.Kind != yaml.MappingNode || strings.HasSuffix(text(child(it, "kind")), "List") {
				r.problem(nil, it.Line, v1alpha1.CodeWrongType, "items", "this is not an object", "write apiVersion, kind and metadata")
				continue
			}
			r.object(it)
		}
	}
}

// object reads one object. Its Problems carry its name as far as it is known.
func (r *reader) object(n *yaml.Node) {
	it := &Item{File: r.name, Line: n.Line, lines: map[string]int{}}
	name := text(child(n, "kind"))
	k, known := r.kinds[name]
	it.ID = r.identify(n, name, k)
	version := child(n, "apiVersion")
	switch {
	case child(n, "kind") == nil:
		r.problem(it, n.Line, v1alpha1.CodeMissing, "kind", "the kind is missing", "write kind: "+strings.Join(names(r.kinds), ", ")+" or List")
		return
	case !known:
		r.problem(it, child(n, "kind").Line, v1alpha1.CodeUnknownKind, "kind", fmt.Sprintf("%q is not a kind that we know", clip(name)), didYouMean(name, names(r.kinds), "use one of "+strings.Join(names(r.kinds), ", ")))
		return
	case version == nil:
		r.problem(it, n.Line, v1alpha1.CodeMissing, "apiVersion", "the apiVersion is missing", "write apiVersion: "+k.apiVersion)
		return
	case text(version) != k.apiVersion:
		r.problem(it, version.Line, v1alpha1.CodeUnknownKind, "apiVersion", fmt.Sprintf("kind %s has no apiVersion %q", name, clip(text(version))), "write apiVersion: "+k.apiVersion)
		return
	}
	before := len(r.problems)
	c := &converter{reader: r, item: it}
	value, _ := c.convert(n, k.schema, "", 0).(map[string]any)
	if first := r.objects.places[it.ID]; first != nil && !strings.HasSuffix(it.ID, " ") {
		r.problem(it, n.Line, v1alpha1.CodeTwice, "", fmt.Sprintf("the object is already at %s:%d", first.File, first.Line), "remove one of them")
	} else {
		r.objects.places[it.ID] = it
	}
	if len(r.problems) > before {
		return
	}
	r.finish(it, k, value)
}

// finish defaults, types and validates what has the right shape.
func (r *reader) finish(it *Item, k kind, value map[string]any) {
	if k.namespaced && r.loader.Project != "" {
		if meta, ok := value["metadata"].(map[string]any); ok && (meta["namespace"] == nil || meta["namespace"] == "") {
			meta["namespace"] = r.loader.Project
		}
	}
	defaults(value)
	if k.apiVersion == "v1" {
		delete(value, "spec")
		delete(value, "status")
	}
	raw, err := json.Marshal(value)
	if err == nil {
		it.Object = k.empty.DeepCopyObject()
		err = json.Unmarshal(raw, it.Object)
	}
	if err != nil {
		r.problem(it, it.Line, v1alpha1.CodeWrongType, "", "the object cannot be read: "+err.Error(), "correct the value")
		return
	}
	v1alpha1.Default(it.Object)
	bad := false
	for _, p := range append(v1alpha1.Validate(it.Object), validateMeta(it, k)...) {
		p.Object = it.ID
		bad = bad || !p.Warning
		r.problems = append(r.problems, r.objects.Place(p))
	}
	if bad {
		return
	}
	it.JSON = raw
	r.objects.add(*it)
}

// validateMeta checks what objects that are not ours say of themselves.
func validateMeta(it *Item, k kind) []v1alpha1.Problem {
	o, ok := it.Object.(metav1.Object)
	if !ok || k.apiVersion == v1alpha1.GroupVersion.String() {
		return nil
	}
	var out []v1alpha1.Problem
	if k.namespaced && o.GetNamespace() == "" {
		out = append(out, v1alpha1.Problem{Code: v1alpha1.CodeMissing, Field: "metadata.namespace", Reason: "the namespace is missing", Fix: "write the project to which it belongs"})
	}
	if o.GetName() == "" {
		return append(out, v1alpha1.Problem{Code: v1alpha1.CodeMissing, Field: "metadata.name", Reason: "the name is missing", Fix: "write a name"})
	}
	if !k.namespaced {
		out = append(out, v1alpha1.ValidateMTLS(o.GetName(), o.GetAnnotations()[v1alpha1.MTLSAnnotation])...)
	}
	return out
}

// defaults fills in what only the text can tell is missing.
func defaults(value map[string]any) {
	spec, _ := value["spec"].(map[string]any)
	switch {
	case spec == nil:
	case value["kind"] == "Policy" && spec["priority"] == nil:
		spec["priority"] = v1alpha1.DefaultPriority
	case value["kind"] == "FloatingIP":
		targets, _ := spec["targets"].([]any)
		for _, t := range targets {
			if target, ok := t.(map[string]any); ok && target["weight"] == nil {
				target["weight"] = v1alpha1.DefaultWeight
			}
		}
	}
}

// identify is "<Kind> <project>/<name>" as far as it is written.
func (r *reader) identify(n *yaml.Node, name string, k kind) string {
	meta := follow(child(n, "metadata"))
	if meta == nil || meta.Kind != yaml.MappingNode {
		return name + " "
	}
	project := text(child(meta, "namespace"))
	if project == "" {
		project = r.loader.Project
	}
	id := name + " " + text(child(meta, "name"))
	if k.namespaced && project != "" {
		id = name + " " + project + "/" + text(child(meta, "name"))
	}
	return id
}

// problem notes a Problem at a line of the file.
func (r *reader) problem(it *Item, line int, code, field, reason, fix string) {
	if r.told++; r.told > maxProblems {
		return
	}
	if r.told == maxProblems {
		reason, fix = "there are more problems than are told", "mend these first"
	}
	p := v1alpha1.Problem{Code: code, Field: clip(field), Reason: reason, Fix: fix, File: r.name, Line: line}
	if it != nil {
		p.Object = clip(strings.TrimSpace(it.ID))
	}
	r.problems = append(r.problems, p)
}

// clip shortens what is quoted of somebody's text.
func clip(s string) string {
	if len(s) <= maxQuoted {
		return s
	}
	return strings.ToValidUTF8(s[:maxQuoted], "") + "..."
}
