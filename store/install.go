package store

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"moire.dev/moire/api"
)

const (
	systemNamespace = "moire-system"
	fieldManager    = "moire"
	group           = "moire.dev"
	version         = "v1alpha1"
)

//go:embed manifests/*.yaml
var manifests embed.FS

// resources names the resource of each kind that we install.
var resources = map[string]schema.GroupVersionResource{
	"CustomResourceDefinition":         {Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
	"Namespace":                        {Version: "v1", Resource: "namespaces"},
	"ClusterRole":                      {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
	"GatewayClass":                     {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"},
	"ValidatingAdmissionPolicy":        {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"},
	"ValidatingAdmissionPolicyBinding": {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"},
}

// installed returns every object that we install, parsed.
func installed() ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for _, src := range []fs.FS{api.CRDs, manifests} {
		names, err := fs.Glob(src, "*/*.yaml")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			data, err := fs.ReadFile(src, name)
			if err != nil {
				return nil, err
			}
			objects, err := parse(data)
			if err != nil {
				return nil, fmt.Errorf("store: %s: %w", name, err)
			}
			all = append(all, objects...)
		}
	}
	return all, nil
}

func parse(data []byte) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096); ; {
		u := &unstructured.Unstructured{}
		if err := d.Decode(&u.Object); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		if len(u.Object) == 0 {
			continue
		}
		if _, ok := resources[u.GetKind()]; !ok {
			return nil, fmt.Errorf("%s %s: no resource is known for this kind", u.GetKind(), u.GetName())
		}
		all = append(all, u)
	}
}

// applyAll applies every object and waits until our kinds are served. What
// somebody else changed in our fields is taken back; what they added stays.
func applyAll(ctx context.Context, loopback *rest.Config) error {
	objects, err := installed()
	if err != nil {
		return err
	}
	config := rest.CopyConfig(loopback)
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("store: loopback client: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, o := range objects {
		g.Go(func() error { return apply(ctx, client, o) })
	}
	return g.Wait()
}

func apply(ctx context.Context, client dynamic.Interface, o *unstructured.Unstructured) error {
	what := "install " + o.GetKind() + " " + o.GetName()
	err := untilOK(ctx, what, func(ctx context.Context) error {
		_, err := client.Resource(resources[o.GetKind()]).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		return err
	})
	if err != nil || o.GetKind() != "CustomResourceDefinition" {
		return err
	}
	kind, err := servedAs(o)
	if err != nil {
		return err
	}
	return untilOK(ctx, "serve "+kind.Resource, func(ctx context.Context) error {
		_, err := client.Resource(kind).List(ctx, metav1.ListOptions{Limit: 1})
		return err
	})
}

// servedAs is the resource of a CRD in its first version that is served.
func servedAs(o *unstructured.Unstructured) (schema.GroupVersionResource, error) {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &crd); err != nil {
		return schema.GroupVersionResource{}, fmt.Errorf("store: CRD %s: %w", o.GetName(), err)
	}
	for _, v := range crd.Spec.Versions {
		if v.Served {
			return schema.GroupVersionResource{Group: crd.Spec.Group, Version: v.Name, Resource: crd.Spec.Names.Plural}, nil
		}
	}
	return schema.GroupVersionResource{}, fmt.Errorf("store: CRD %s serves no version", o.GetName())
}
