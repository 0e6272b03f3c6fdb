package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/cli/manifest"
	"moire.dev/moire/snapshot/policy"
)

// intent is what files declare, typed, with the documents that it came from.
type intent struct {
	docs    []*manifest.Doc
	objects []runtime.Object
}

// readIntent reads and checks files for questions without a server.
func (a *app) readIntent(paths []string, recursive bool) (*intent, error) {
	docs, err := a.readDocs(paths, recursive, "default")
	if err != nil {
		return nil, err
	}
	in := &intent{docs: docs}
	for _, d := range docs {
		object := emptyObject(d)
		if object == nil {
			continue // not ours, so it decides nothing
		}
		body, err := d.JSON()
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(body, object); err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", d.File, d.Line, d, err)
		}
		in.objects = append(in.objects, object)
	}
	if len(in.objects) == 0 {
		return nil, errors.New("the files declare nothing of Moiré")
	}
	return in, nil
}

func emptyObject(d *manifest.Doc) runtime.Object {
	if d.APIVersion == "v1" && d.Kind == "Namespace" {
		return &metav1.PartialObjectMetadata{}
	}
	if d.APIVersion != v1alpha1.GroupVersion.String() {
		return nil
	}
	switch d.Kind {
	case "Domain":
		return &v1alpha1.Domain{}
	case "Network":
		return &v1alpha1.Network{}
	case "Workload":
		return &v1alpha1.Workload{}
	case "Policy":
		return &v1alpha1.Policy{}
	case "Node":
		return &v1alpha1.Node{}
	}
	return nil
}

// find is the document of an object; project is empty for kinds without one.
func (in *intent) find(kind, project, name string) *manifest.Doc {
	for _, d := range in.docs {
		if d.Kind == kind && d.Namespace == project && d.Name == name {
			return d
		}
	}
	return nil
}

// origin says where a rule is written; see policy.RuleID.
func (in *intent) origin(id policy.RuleID) (file string, line int) {
	part := strings.Split(string(id), "/")
	switch {
	case part[0] == "policy" && len(part) == 5:
		d := in.find("Policy", part[1], part[2])
		if d == nil {
			return "", 0
		}
		return d.File, d.LineOf(ruleField(d, part[3], part[4]))
	case part[0] == "default" && len(part) == 4:
		d := in.find("Network", part[1], part[2])
		if d == nil {
			return "", 0
		}
		return d.File, d.LineOf("spec.default")
	}
	return "", 0
}

// ruleField is the path of the rule with that name or index.
func ruleField(d *manifest.Doc, direction, rule string) string {
	spec, _ := d.Object["spec"].(map[string]any)
	rules, _ := spec[direction].([]any)
	for i, r := range rules {
		if m, ok := r.(map[string]any); ok && m["name"] == rule {
			return "spec." + direction + "[" + strconv.Itoa(i) + "]"
		}
	}
	return "spec." + direction + "[" + rule + "]"
}

// located is the problem with file and line of the object that it is about.
func (in *intent) located(p v1alpha1.Problem) v1alpha1.Problem {
	kind, name, _ := strings.Cut(p.Object, " ")
	project, name, found := strings.Cut(name, "/")
	if !found {
		project, name = "", project
	}
	if d := in.find(kind, project, name); d != nil && p.File == "" {
		p.File, p.Line = d.File, d.LineOf(p.Field)
	}
	return p
}
