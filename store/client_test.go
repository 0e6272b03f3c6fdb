package store

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

var workloadResource = schema.GroupVersionResource{Group: group, Version: version, Resource: "workloads"}

// TestInformer: a client-go informer, which asks for streaming lists, sees the
// world and intent as one.
func TestInformer(t *testing.T) {
	ns := project(t)
	config, err := clientcmd.BuildConfigFromFlags("", shared.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, fmt.Sprintf(declaredWorkload, "declared"), "apply", "-n", ns, "-f", "-")
	shared.world.report(ns, "reported", "Running", "n1")
	eventually(t, func() string {
		if _, err := client.Resource(workloadResource).Namespace(ns).Get(t.Context(), "reported", metav1.GetOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, ns, nil)
	informer := factory.ForResource(workloadResource).Informer()
	var mu sync.Mutex
	var log []string
	note := func(what string, o any) {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return
		}
		phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
		mu.Lock()
		defer mu.Unlock()
		log = append(log, what+" "+u.GetName()+" "+phase)
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { note("add", o) },
		UpdateFunc: func(_, o any) { note("update", o) },
		DeleteFunc: func(o any) { note("delete", o) },
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer cancel()
	seen := func(want string) {
		t.Helper()
		eventually(t, func() string {
			mu.Lock()
			defer mu.Unlock()
			if slices.Contains(log, want) {
				return ""
			}
			return fmt.Sprintf("no %q in %q", want, log)
		})
	}
	seen("add declared ")
	seen("add reported Running")
	shared.world.report(ns, "declared", "Running", "n2")
	seen("update declared Running")
	shared.world.report(ns, "reported", "Stale", "n1")
	seen("update reported Stale")
	shared.world.forget(ns, "reported")
	seen("delete reported Stale")
	kubectl(t, "", "delete", "workload", "declared", "-n", ns)
	seen("delete declared Running")
	seen("add declared Running") // it still runs, though nobody declares it
	if keys := informer.GetStore().ListKeys(); !slices.Equal(keys, []string{ns + "/declared"}) {
		t.Errorf("the informer holds %v", keys)
	}
}

// TestLoopbackSeesIntentOnly: our own controllers must not act on what they
// themselves show.
func TestLoopbackSeesIntentOnly(t *testing.T) {
	ns := project(t)
	kubectl(t, fmt.Sprintf(declaredWorkload, "declared"), "apply", "-n", ns, "-f", "-")
	shared.world.report(ns, "declared", "Running", "n1")
	shared.world.report(ns, "reported", "Running", "n1")
	eventually(t, func() string {
		_, errs, _ := kubectlWith(t, shared.kubeconfig, "", "get", "workload", "reported", "-n", ns)
		return errs
	})
	client, err := dynamic.NewForConfig(shared.store.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.Resource(workloadResource).Namespace(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].GetName() != "declared" || list.Items[0].Object["status"] != nil {
		t.Errorf("loopback sees %v", list.Items)
	}
}

// raw asks as admin and returns status code, content type and body.
func raw(t *testing.T, method, path, accept, body string) (int, string, string) {
	t.Helper()
	_, client := adminClient(t, shared.dir)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, shared.store.RESTConfig().Host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(data)
}

func TestNegotiation(t *testing.T) {
	ns := project(t)
	shared.world.report(ns, "ran", "Running", "n1", "a=b")
	base := "/apis/moire.dev/v1alpha1/namespaces/" + ns + "/workloads"
	eventually(t, func() string {
		if code, _, body := raw(t, "GET", base+"/ran", "application/json", ""); code != 200 {
			return body
		}
		return ""
	})
	const table = "as=Table;g=meta.k8s.io;v=v1"
	for _, c := range []struct {
		name, path, accept string
		code               int
		contentType        string
		want               []string
	}{
		{"json", base, "application/json", 200, "application/json", []string{`"kind":"WorkloadList"`, `"vni":77`}},
		{"nothing said", base, "", 200, "application/json", []string{`"kind":"WorkloadList"`}},
		{"anything", base + "/ran", "*/*", 200, "application/json", []string{`"kind":"Workload"`}},
		{"yaml", base + "/ran", "application/yaml", 200, "application/yaml", []string{"kind: Workload", "phase: Running"}},
		{"protobuf first, then json", base, "application/vnd.kubernetes.protobuf, application/json", 200, "application/json", []string{`"kind":"WorkloadList"`}},
		{"cbor first, then json", base, "application/cbor;q=1, application/json;q=0.9", 200, "application/json", []string{`"kind":"WorkloadList"`}},
		{"protobuf only", base, "application/vnd.kubernetes.protobuf", 406, "application/json", []string{"application/json and application/yaml"}},
		{"table", base, "application/json;" + table, 200, "application/json", []string{`"kind":"Table"`, `"name":"Phase"`, `"kind":"PartialObjectMetadata"`, `"priority":1`}},
		{"table of one", base + "/ran", "application/json;" + table, 200, "application/json", []string{`"kind":"Table"`, `"cells":["ran","Running"`}},
		{"table with objects", base + "?includeObject=Object", "application/json;" + table, 200, "application/json", []string{`"kind":"Workload"`}},
		{"table without objects", base + "?includeObject=None", "application/json;" + table, 200, "application/json", []string{`"object":null`}},
		{"table with what", base + "?includeObject=Some", "application/json;" + table, 400, "application/json", []string{`includeObject`}},
		{"old table", base, "application/json;as=Table;g=meta.k8s.io;v=v1beta1", 200, "application/json", []string{`"apiVersion":"meta.k8s.io/v1beta1"`}},
		{"metadata", base, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", 200, "application/json", []string{`"kind":"PartialObjectMetadataList"`, `"a":"b"`}},
		{"metadata of one", base + "/ran", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", 200, "application/json", []string{`"kind":"PartialObjectMetadata"`}},
		{"unknown form, then json", base, "application/json;as=Graph;g=x;v=v1,application/json", 200, "application/json", []string{`"kind":"WorkloadList"`}},
		{"watch as yaml", base + "?watch=1&timeoutSeconds=1", "application/yaml", 406, "application/json", []string{"watches only as application/json"}},
		{"watch as protobuf, then json", base + "?watch=1&timeoutSeconds=1", "application/vnd.kubernetes.protobuf;stream=watch,application/json", 200, "application/json", []string{`{"type":"ADDED","object":{`}},
		{"watch as table", base + "?watch=1&timeoutSeconds=1", "application/json;" + table, 200, "application/json", []string{`"kind":"Table"`, `"columnDefinitions":[{`}},
		{"bad labels", base + "?labelSelector=a%3D%3D%3D", "application/json", 400, "application/json", []string{"labelSelector"}},
		{"bad field", base + "?fieldSelector=spec.node%3Dn1", "application/json", 400, "application/json", []string{"field label not supported"}},
		{"unknown name", base + "/none", "application/json", 404, "application/json", []string{`workloads.moire.dev \"none\" not found`}},
		{"a version of long ago", base + "?watch=1&resourceVersion=" + joinVersion("5", 1), "application/json", 410, "application/json", []string{"list again"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, contentType, body := raw(t, "GET", c.path, c.accept, "")
			if code != c.code || contentType != c.contentType {
				t.Errorf("got %d %s, want %d %s", code, contentType, c.code, c.contentType)
			}
			for _, w := range c.want {
				if !strings.Contains(body, w) {
					t.Errorf("no %q in:\n%s", w, body)
				}
			}
		})
	}
}

// TestResume: a watch from a list's version misses nothing and repeats nothing,
// also if the world changed in between; bookmarks say where to go on.
func TestResume(t *testing.T) {
	ns := project(t)
	base := "/apis/moire.dev/v1alpha1/namespaces/" + ns + "/workloads"
	shared.world.report(ns, "stays", "Running", "n1")
	shared.world.report(ns, "goes", "Running", "n1")
	var version string
	eventually(t, func() string {
		_, _, body := raw(t, "GET", base, "application/json", "")
		var list metav1.PartialObjectMetadataList
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		version = list.ResourceVersion
		if len(list.Items) != 2 {
			return body
		}
		return ""
	})
	shared.world.forget(ns, "goes")
	shared.world.report(ns, "comes", "Running", "n1")
	kubectl(t, fmt.Sprintf(declaredWorkload, "new"), "create", "-n", ns, "-f", "-")
	eventually(t, func() string {
		if code, _, body := raw(t, "GET", base+"/comes", "application/json", ""); code != 200 {
			return body
		}
		return ""
	})
	_, _, body := raw(t, "GET", base+"?watch=1&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion="+version, "application/json", "")
	var got []string
	s := bufio.NewScanner(strings.NewReader(body))
	for s.Scan() {
		var e struct {
			Type   string
			Object metav1.PartialObjectMetadata
		}
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Type != "BOOKMARK" {
			got = append(got, e.Type+" "+e.Object.Name)
		}
		if _, _, ok := splitVersion(e.Object.ResourceVersion); !ok {
			t.Errorf("event without a composite version: %s", s.Text())
		}
	}
	slices.Sort(got)
	plain, _, _ := splitVersion(version)
	_, _, fromIntent := raw(t, "GET", base+"?watch=1&timeoutSeconds=1&resourceVersion="+plain, "application/json", "")
	for _, want := range []string{`{"type":"ADDED","object":{"apiVersion":"moire.dev/v1alpha1","kind":"Workload"`, `"name":"comes"`, `"name":"stays"`, `"name":"new"`} {
		if !strings.Contains(fromIntent, want) { // a version without a world side knows nothing of the world
			t.Errorf("a watch from version %s lacks %s:\n%s", plain, want, fromIntent)
		}
	}
	if want := []string{"ADDED comes", "ADDED new", "DELETED goes"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q\n%s", got, want, body)
	}
}

func TestVirtualResources(t *testing.T) {
	const base = "/apis/moire.dev/v1alpha1/"
	for _, c := range []struct {
		method, path string
		code         int
		want         string
	}{
		{"GET", base + "flows", 200, "flows of /apis/moire.dev/v1alpha1/flows"},
		{"GET", base + "namespaces/shop/flows", 200, "flows of /apis/moire.dev/v1alpha1/namespaces/shop/flows"},
		{"GET", base + "summary", 200, "all is well"},
		{"GET", base + "namespaces/shop/summary", 404, "summary belong to no project"},
		{"POST", base + "flows", 405, "they can only be read with GET"},
		{"GET", base + "nothing", 404, "404"},
		{"GET", "/apis/moire.dev/v1beta1/flows", 404, "404"},
	} {
		code, _, body := raw(t, c.method, c.path, "application/json", "")
		if code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, code, body, c.code, c.want)
		}
	}
	_, client := adminClient(t, shared.dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", shared.store.RESTConfig().Host+base+"flows?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for range 3 {
		if !lines.Scan() {
			t.Fatal("a stream that follows ended:", lines.Err())
		}
	}
}
