package load

import (
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/policy"
)

// Objects are the good objects of some files.
type Objects struct {
	Domains    map[string]*v1alpha1.Domain              // by name
	Namespaces map[string]*metav1.PartialObjectMetadata // by name
	Networks   map[string]*v1alpha1.Network             // by "project/name"
	Workloads  map[string]*v1alpha1.Workload            // by "project/name"
	Policies   map[string]*v1alpha1.Policy              // by "project/name"
	// Items are all, of every kind, in the order of the files.
	Items []Item
	// places has the positions also of objects that were refused.
	places map[string]*Item
}

// Item is one object and where it is written.
type Item struct {
	Object runtime.Object
	// ID is "<Kind> <project>/<name>" or "<Kind> <name>".
	ID   string
	File string
	Line int
	// JSON is the object as it was written, defaults filled in.
	JSON  []byte
	lines map[string]int
}

func newObjects() *Objects {
	return &Objects{Domains: map[string]*v1alpha1.Domain{}, Namespaces: map[string]*metav1.PartialObjectMetadata{},
		Networks: map[string]*v1alpha1.Network{}, Workloads: map[string]*v1alpha1.Workload{}, Policies: map[string]*v1alpha1.Policy{},
		places: map[string]*Item{}}
}

// All lists the objects in the order of the files.
func (o *Objects) All() []runtime.Object {
	out := make([]runtime.Object, len(o.Items))
	for i := range o.Items {
		out[i] = o.Items[i].Object
	}
	return out
}

func (o *Objects) add(it Item) {
	o.Items = append(o.Items, it)
	_, key, _ := strings.Cut(it.ID, " ")
	switch obj := it.Object.(type) {
	case *v1alpha1.Domain:
		o.Domains[key] = obj
	case *v1alpha1.Network:
		o.Networks[key] = obj
	case *v1alpha1.Workload:
		o.Workloads[key] = obj
	case *v1alpha1.Policy:
		o.Policies[key] = obj
	case *metav1.PartialObjectMetadata:
		o.Namespaces[key] = obj
	}
}

// Where finds the file and line of a field of an object, or of the nearest
// part of the path that is written. ok is false when the object is unknown.
func (o *Objects) Where(object, field string) (file string, line int, ok bool) {
	it := o.places[object]
	if it == nil {
		return "", 0, false
	}
	return it.File, it.line(field), true
}

// line is the line of the field or of its nearest written ancestor.
func (it *Item) line(field string) int {
	for field != "" {
		if l, ok := it.lines[field]; ok {
			return l
		}
		i := strings.LastIndexAny(field, ".[")
		if i < 0 {
			break
		}
		field = field[:i]
	}
	return it.Line
}

// Place gives a Problem its file and line when its object is known.
func (o *Objects) Place(p v1alpha1.Problem) v1alpha1.Problem {
	if p.File == "" {
		p.File, p.Line, _ = o.Where(p.Object, p.Field)
	}
	return p
}

// Origin finds where the rule or default of an id is written; "" when it is
// not in these files.
func (o *Objects) Origin(id policy.RuleID) (file string, line int) {
	p := strings.Split(string(id), "/")
	switch {
	case p[0] == "policy" && len(p) == 5:
		key := p[1] + "/" + p[2]
		pol := o.Policies[key]
		if pol == nil {
			return "", 0
		}
		rules := pol.Spec.Ingress
		if p[3] == policy.Egress.String() {
			rules = pol.Spec.Egress
		}
		index := p[4]
		for i := range rules {
			if rules[i].Name == p[4] {
				index = strconv.Itoa(i)
				break
			}
		}
		file, line, _ = o.Where("Policy "+key, "spec."+p[3]+"["+index+"]")
	case p[0] == "isolated" && len(p) == 4:
		file, line, _ = o.Where("Policy "+p[1]+"/"+p[2], "spec."+p[3])
	case p[0] == "default" && len(p) == 4:
		file, line, _ = o.Where("Network "+p[1]+"/"+p[2], "spec.default")
	}
	return file, line
}
