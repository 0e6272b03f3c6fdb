//go:build !race

package api_test

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"moire.dev/moire/api/v1alpha1"
)

// crd is what the API server makes of one CRD.
type crd struct {
	schema    *structuralschema.Structural
	validator validation.SchemaValidator
	rules     *cel.Validator
}

// crds reads the generated CRDs by kind, and checks them as the API server
// does when they are installed, the cost of their CEL rules included.
func crds(t *testing.T) map[string]crd {
	t.Helper()
	files, err := filepath.Glob("crd/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no CRDs", err)
	}
	out := map[string]crd{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v1 apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &v1); err != nil {
			t.Fatal(err)
		}
		apiextensionsv1.SetDefaults_CustomResourceDefinition(&v1)
		apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&v1.Spec)
		var internal apiextensions.CustomResourceDefinition
		if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&v1, &internal, nil); err != nil {
			t.Fatal(err)
		}
		for _, v := range internal.Spec.Versions {
			if v.Storage {
				internal.Status.StoredVersions = []string{v.Name}
			}
		}
		for _, e := range crdvalidation.ValidateCustomResourceDefinition(context.Background(), &internal) {
			t.Errorf("%s: %v", file, e)
		}
		schema := internal.Spec.Validation
		if schema == nil {
			schema = internal.Spec.Versions[0].Schema
		}
		structural, err := structuralschema.NewStructural(schema.OpenAPIV3Schema)
		if err != nil {
			t.Fatal(err)
		}
		validator, _, err := validation.NewSchemaValidator(schema.OpenAPIV3Schema)
		if err != nil {
			t.Fatal(err)
		}
		out[v1.Spec.Names.Kind] = crd{structural, validator, cel.NewValidator(structural, true, math.MaxInt64)}
	}
	return out
}

// judge is what the API server says of an object, after defaulting it.
func (c crd) judge(object map[string]any) []string {
	defaulting.PruneNonNullableNullsWithoutDefaults(object, c.schema)
	defaulting.Default(object, c.schema)
	var out []string
	for _, e := range validation.ValidateCustomResource(nil, object, c.validator) {
		out = append(out, e.Error())
	}
	for _, e := range listtype.ValidateListSetsAndMaps(nil, c.schema, object) {
		out = append(out, e.Error())
	}
	if len(out) > 0 {
		return out
	}
	errs, _ := c.rules.Validate(context.Background(), nil, c.schema, object, nil, math.MaxInt64)
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}

func TestCRDsInstall(t *testing.T) { crds(t) }

// spec is one object in few words.
type spec struct{ kind, spec string }

var judged = []spec{
	{"Domain", `{}`}, {"Domain", `{trustDomain: a.b}`}, {"Domain", `{trustDomain: "A b"}`}, {"Domain", `{trustDomain: ""}`},
	{"Domain", `{svidLifeSeconds: 60}`}, {"Domain", `{svidLifeSeconds: 59}`}, {"Domain", `{svidLifeSeconds: 86401}`}, {"Domain", `{federates: []}`}, {"Domain", `{federates: [{domain: b}]}`}, {"Domain", `{federates: [{}]}`},
	{"Domain", `{federates: [{domain: b, trustDomain: c}]}`}, {"Domain", `{federates: [{domain: b, bundle: "{}"}]}`}, {"Domain", `{federates: [{trustDomain: c}]}`}, {"Domain", `{federates: [{trustDomain: C, bundle: "{}"}]}`}, {"Domain", `{federates: [{bundle: "{}"}]}`},
	{"Node", `{address: 192.0.2.1}`}, {"Node", `{address: "fd00::1"}`}, {"Node", `{address: 192.0.2.1/24}`}, {"Node", `{address: "::ffff:1.2.3.4"}`}, {"Node", `{address: "fe80::1%eth0"}`}, {"Node", `{address: 010.0.0.1}`},
	{"Network", `{prefixes: [10.0.0.0/24]}`}, {"Network", `{prefixes: []}`}, {"Network", `{prefixes: [10.0.0.1/24]}`}, {"Network", `{prefixes: [10.0.0.0/24, 10.0.0.0/25]}`},
	{"Network", `{prefixes: [10.0.0.0/24, 10.0.0.0/24]}`}, {"Network", `{prefixes: [10.0.0.0/24, "fd00::/64"]}`}, {"Network", `{prefixes: ["fd00::1/64"]}`}, {"Network", `{prefixes: ["::ffff:10.0.0.0/120"]}`},
	{"Network", `{prefixes: [10.0.0.0]}`}, {"Network", `{prefixes: [0.0.0.0/0, 10.0.0.0/8]}`}, {"Network", `{prefixes: [10.0.0.0/24], default: shut}`}, {"Network", `{prefixes: [10.0.0.0/24], mtu: 1279}`},
	{"Network", `{prefixes: [10.0.0.0/24], mtu: 9000}`}, {"Network", `{prefixes: [10.0.0.0/24], reserved: [10.0.0.3-10.0.0.4, 10.0.0.8/30, 10.0.0.9]}`}, {"Network", `{prefixes: [10.0.0.0/24], static: [x]}`},
	{"Network", `{prefixes: [10.0.0.0/24], allocation: [10.0.0.1-]}`}, {"Network", `{prefixes: [10.0.0.0/24], allocation: [1-2-3]}`},
	{"Workload", `{interfaces: [{network: main}]}`}, {"Workload", `{interfaces: []}`}, {"Workload", `{interfaces: [{network: ""}]}`}, {"Workload", `{interfaces: [{network: a}, {network: a}]}`},
	{"Workload", `{interfaces: [{network: a, addresses: [10.0.0.1, "fd00::1"]}]}`}, {"Workload", `{interfaces: [{network: a, addresses: [10.0.0.1, 10.0.0.2]}]}`}, {"Workload", `{interfaces: [{network: a, addresses: [10.0.0.1/24]}]}`},
	{"Workload", `{interfaces: [{network: a, mac: "02:00:00:00:00:01"}]}`}, {"Workload", `{interfaces: [{network: a, mac: "02:00:00:00:00:0A"}]}`}, {"Workload", `{account: "-", interfaces: [{network: a}]}`},
	{"Policy", `{}`}, {"Policy", `{ingress: []}`}, {"Policy", `{egress: []}`}, {"Policy", `{tier: admin, ingress: [{action: accept}]}`}, {"Policy", `{tier: admin, ingress: [{action: allow}]}`},
	{"Policy", `{ingress: [{action: accept}]}`}, {"Policy", `{egress: [{action: pass}]}`}, {"Policy", `{tier: baseline, egress: [{action: allow}]}`}, {"Policy", `{tier: top, ingress: []}`}, {"Policy", `{mode: dry, ingress: []}`},
	{"Policy", `{priority: 0, ingress: []}`}, {"Policy", `{priority: 1001, ingress: []}`}, {"Policy", `{priority: -1, ingress: []}`},
	{"Policy", `{ingress: [{action: allow, to: []}]}`}, {"Policy", `{egress: [{action: allow, from: [{project: a}]}]}`}, {"Policy", `{ingress: [{action: allow, from: []}]}`},
	{"Policy", `{subject: {projects: [a]}, ingress: []}`}, {"Policy", `{tier: admin, subject: {projects: [a]}, ingress: []}`}, {"Policy", `{subject: {networks: [a, a]}, ingress: []}`},
	{"Policy", `{ingress: [{action: allow, from: [{}]}]}`}, {"Policy", `{ingress: [{action: allow, from: [{labels: {}}]}]}`}, {"Policy", `{ingress: [{action: allow, from: [{cidr: 10.0.0.0/24, except: [10.0.0.1/24]}]}]}`},
	{"Policy", `{ingress: [{action: allow, from: [{project: a, except: [10.0.0.0/24]}]}]}`}, {"Policy", `{ingress: [{action: allow, from: [{cidr: 10.0.0.1/24}]}]}`}, {"Policy", `{ingress: [{action: allow, from: [{cidr: 10.0.0.0/24, except: [x]}]}]}`},
	{"Policy", `{ingress: [{action: allow, ports: [{port: 80}, {protocol: ICMP}, {protocol: UDP, port: 1, endPort: 65535}]}]}`}, {"Policy", `{ingress: [{action: allow, ports: [{protocol: ICMP, port: 8}]}]}`},
	{"Policy", `{ingress: [{action: allow, ports: [{endPort: 8}]}]}`}, {"Policy", `{ingress: [{action: allow, ports: [{port: 9, endPort: 8}]}]}`}, {"Policy", `{ingress: [{action: allow, ports: [{port: 65536}]}]}`},
	{"Policy", `{ingress: [{action: allow, ports: [{protocol: tcp}]}]}`}, {"Policy", `{ingress: [{action: nod}]}`}, {"Policy", `{ingress: [{action: allow, name: A}]}`}, {"Policy", `{ingress: [{action: allow, name: a-b}]}`},
}

// TestGoSaysWhatCELSays: Validate refuses an object if and only if the API
// server does, and fills in the same defaults.
func TestGoSaysWhatCELSays(t *testing.T) {
	kinds := crds(t)
	for _, c := range slices.Concat(judged, judgedLinks, judgedServices, judgedOutside, judgedRequests, judgedTraffic) {
		namespace := ""
		if c.kind != "Domain" && c.kind != "Node" {
			namespace = "  namespace: shop\n"
		}
		text := "apiVersion: moire.dev/v1alpha1\nkind: " + c.kind + "\nmetadata:\n  name: x\n" + namespace + "spec: " + c.spec + "\n"
		var object map[string]any
		raw, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := utiljson.Unmarshal(raw, &object); err != nil { // whole numbers stay whole
			t.Fatal(err)
		}
		server := kinds[c.kind].judge(object)
		own := typed(c.kind)
		if err := yaml.Unmarshal([]byte(text), own); err != nil {
			t.Fatal(err)
		}
		v1alpha1.Default(own)
		var ours []string
		for _, p := range v1alpha1.Validate(own) {
			if !p.Warning {
				ours = append(ours, p.Error())
			}
		}
		if (len(server) > 0) != (len(ours) > 0) {
			t.Errorf("%s %s:\nthe server says %q\nwe say %q", c.kind, c.spec, server, ours)
		}
		if len(server) > 0 {
			continue
		}
		sameSpec(t, c, object, own)
	}
}

func typed(kind string) runtime.Object {
	return map[string]runtime.Object{"Domain": &v1alpha1.Domain{}, "Node": &v1alpha1.Node{}, "Network": &v1alpha1.Network{}, "Workload": &v1alpha1.Workload{}, "Policy": &v1alpha1.Policy{},
		"Link": &v1alpha1.Link{}, "Service": &v1alpha1.Service{}, "FloatingIP": &v1alpha1.FloatingIP{},
		"BackendPolicy": &v1alpha1.BackendPolicy{}, "FaultPolicy": &v1alpha1.FaultPolicy{}}[kind]
}

// sameSpec compares the defaulted object of the server with ours.
func sameSpec(t *testing.T, c spec, object map[string]any, own runtime.Object) {
	t.Helper()
	theirs := typed(c.kind)
	b, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, theirs); err != nil {
		t.Fatal(err)
	}
	if p, ok := own.(*v1alpha1.Policy); ok && !strings.Contains(c.spec, "priority") {
		p.Spec.Priority = v1alpha1.DefaultPriority
	}
	if f, ok := own.(*v1alpha1.FloatingIP); ok && !strings.Contains(c.spec, "weight") {
		for i := range f.Spec.Targets {
			f.Spec.Targets[i].Weight = v1alpha1.DefaultWeight
		}
	}
	want, _ := json.Marshal(theirs)
	got, _ := json.Marshal(own)
	if string(got) != string(want) {
		t.Errorf("%s %s:\ndefaulted to %s\nthe server to %s", c.kind, c.spec, got, want)
	}
}
