package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	runtimejson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/yaml"

	"moire.dev/moire/api"
)

// tables makes tables with the printer columns of a CRD.
type tables struct{ rest.TableConvertor }

// tablesOf reads the printer columns of a resource from its CRD.
func tablesOf(plural string) (tables, error) {
	name := fmt.Sprintf("crd/%s_%s.yaml", group, plural)
	data, err := fs.ReadFile(api.CRDs, name)
	if err != nil {
		return tables{}, fmt.Errorf("store: %w", err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(data, &crd); err != nil {
		return tables{}, fmt.Errorf("store: %s: %w", name, err)
	}
	for _, v := range crd.Spec.Versions {
		if v.Name == version {
			c, err := tableconvertor.New(v.AdditionalPrinterColumns)
			if err != nil {
				return tables{}, fmt.Errorf("store: %s: %w", name, err)
			}
			return tables{c}, nil
		}
	}
	return tables{}, fmt.Errorf("store: %s has no version %s", name, version)
}

// accepted says what a client wants to get.
type accepted struct {
	yaml    bool
	pretty  bool
	convert *schema.GroupVersionKind // Table, PartialObjectMetadata(List); nil: the object
	table   metav1.TableOptions
}

// mediaTypes are what a CRD offers too: protobuf and CBOR are not among them.
var mediaTypes = []runtime.SerializerInfo{
	{
		MediaType: "application/json", MediaTypeType: "application", MediaTypeSubType: "json", EncodesAsText: true,
		StreamSerializer: &runtime.StreamSerializerInfo{EncodesAsText: true, Framer: runtimejson.Framer},
	},
	{MediaType: "application/yaml", MediaTypeType: "application", MediaTypeSubType: "yaml", EncodesAsText: true},
}

// transforms are the conversions that every resource offers.
type transforms struct{}

func (transforms) AllowsMediaTypeTransform(_, _ string, to *schema.GroupVersionKind) bool {
	if to == nil {
		return true
	}
	switch to.Kind {
	case "Table", "PartialObjectMetadata", "PartialObjectMetadataList":
		return to.Group == metav1.GroupName && (to.Version == "v1" || to.Version == "v1beta1")
	}
	return false
}

func (transforms) AllowsServerVersion(string) bool  { return false }
func (transforms) AllowsStreamSchema(s string) bool { return s == "watch" }
func notAcceptable(why string) *apierrors.StatusError {
	return refuse(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, "", "",
		"the server offers application/json and application/yaml, watches only as application/json; "+why)
}

// accept finds out what the client wants.
func accept(r *http.Request, stream bool) (accepted, *apierrors.StatusError) {
	m, ok := negotiation.NegotiateMediaTypeOptions(r.Header.Get("Accept"), mediaTypes, transforms{})
	if !ok || stream && m.Accepted.StreamSerializer == nil {
		return accepted{}, notAcceptable(fmt.Sprintf("change the header Accept, which is %q", r.Header.Get("Accept")))
	}
	q := r.URL.Query()
	a := accepted{
		yaml:    m.Accepted.MediaTypeSubType == "yaml",
		pretty:  m.Pretty || q.Get("pretty") == "true" || !q.Has("pretty") && strings.HasPrefix(r.UserAgent(), "curl"),
		convert: m.Convert,
	}
	if a.convert != nil && a.convert.Kind == "Table" {
		switch p := metav1.IncludeObjectPolicy(q.Get("includeObject")); p {
		case "", metav1.IncludeMetadata, metav1.IncludeNone, metav1.IncludeObject:
			a.table.IncludeObject = p
		default:
			return a, apierrors.NewBadRequest(fmt.Sprintf("includeObject: %q is unknown; use None, Metadata or Object", p))
		}
	}
	return a, nil
}

// convertTo turns an object or a list into what the client wants.
func (l *laidResource) convertTo(ctx context.Context, a *accepted, o runtime.Object) (any, error) {
	if a.convert == nil {
		return content(o), nil
	}
	gv := a.convert.GroupVersion()
	if a.convert.Kind == "Table" {
		return l.tableOf(ctx, a, gv, o)
	}
	list, isList := o.(*unstructured.UnstructuredList)
	if !isList {
		return metadataOf(gv, o.(*unstructured.Unstructured)), nil
	}
	items := make([]any, 0, len(list.Items))
	for i := range list.Items {
		items = append(items, metadataOf(gv, &list.Items[i]))
	}
	return map[string]any{
		"apiVersion": gv.String(), "kind": "PartialObjectMetadataList",
		"metadata": list.Object["metadata"], "items": items,
	}, nil
}

// content returns what an object or list holds, with items even if empty.
func content(o runtime.Object) map[string]any {
	list, ok := o.(*unstructured.UnstructuredList)
	if !ok {
		return o.(*unstructured.Unstructured).Object
	}
	items := make([]any, 0, len(list.Items))
	for i := range list.Items {
		items = append(items, list.Items[i].Object)
	}
	out := map[string]any{"items": items}
	for k, v := range list.Object {
		out[k] = v
	}
	return out
}

func metadataOf(gv schema.GroupVersion, o *unstructured.Unstructured) map[string]any {
	return map[string]any{"apiVersion": gv.String(), "kind": "PartialObjectMetadata", "metadata": o.Object["metadata"]}
}

// tableJSON is a metav1.Table whose rows hold plain values: encoded once, not
// first each row and then the table.
type tableJSON struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ListMeta   `json:"metadata"`
	ColumnDefinitions []metav1.TableColumnDefinition `json:"columnDefinitions"`
	Rows              []rowJSON                      `json:"rows"`
}

type rowJSON struct {
	Cells  []any `json:"cells"`
	Object any   `json:"object"`
}

func (l *laidResource) tableOf(ctx context.Context, a *accepted, gv schema.GroupVersion, o runtime.Object) (*tableJSON, error) {
	t, err := l.table.ConvertToTable(ctx, o, &a.table)
	if err != nil {
		return nil, err
	}
	out := &tableJSON{
		TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: gv.String()},
		ListMeta: t.ListMeta, ColumnDefinitions: t.ColumnDefinitions,
		Rows: make([]rowJSON, len(t.Rows)),
	}
	for i, row := range t.Rows {
		u, ok := row.Object.Object.(*unstructured.Unstructured)
		if !ok {
			return nil, errors.New("a row without its object")
		}
		out.Rows[i].Cells = row.Cells
		switch a.table.IncludeObject {
		case metav1.IncludeNone:
		case metav1.IncludeObject:
			out.Rows[i].Object = u.Object
		default:
			out.Rows[i].Object = metadataOf(gv, u)
		}
	}
	return out, nil
}

// render writes an object or a list in the form that the client wants.
func (l *laidResource) render(w http.ResponseWriter, r *http.Request, code int, o runtime.Object) {
	a, problem := accept(r, false)
	if problem != nil {
		writeError(w, problem)
		return
	}
	out, err := l.convertTo(r.Context(), &a, o)
	if err != nil {
		writeError(w, apierrors.NewInternalError(err))
		return
	}
	var body []byte
	contentType := "application/json"
	switch {
	case a.yaml:
		contentType = "application/yaml"
		body, err = yaml.Marshal(out)
	case a.pretty:
		body, err = json.MarshalIndent(out, "", "  ")
	default:
		body, err = json.Marshal(out)
	}
	if err != nil {
		writeError(w, apierrors.NewInternalError(err))
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(code)
	w.Write(append(body, '\n')) // the client is gone if this fails
}
