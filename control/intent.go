package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
)

// intent is what people declared, as the API server says it.
type intent struct {
	domains, networks, workloads, policies, nodes, projects *shelf
	links, services, floating                               *shelf
	traffic                                                 traffic
	informers                                               []cache.SharedIndexInformer
	// newest are objects with their newest status; only for who calls read.
	newest newest
}

// newest are the objects whose status we write, as they are on the server. The
// compiler gets older ones where only the status is another.
type newest struct {
	policies map[compile.Key]*v1alpha1.Policy
	links    map[compile.Key]*v1alpha1.Link
	services map[compile.Key]*v1alpha1.Service
	floating map[compile.Key]*v1alpha1.FloatingIP
	traffic  newestTraffic
}

// shelf holds the objects of one kind. Objects on it are never changed.
type shelf struct {
	list func() []any
	// changed since it was read last.
	changed atomic.Bool
}

// clients of the groups that we read.
type clients struct {
	moire   *rest.RESTClient
	core    *rest.RESTClient
	gateway *rest.RESTClient
}

// gatewayResources are the resources of the Gateway API whose status we write.
var gatewayResources = []string{"httproutes", "grpcroutes", "tlsroutes", "tcproutes", "gateways", "gatewayclasses"}

func newClients(cfg *rest.Config) (clients, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(v1alpha1.GroupVersion,
		&v1alpha1.Domain{}, &v1alpha1.DomainList{}, &v1alpha1.Network{}, &v1alpha1.NetworkList{},
		&v1alpha1.Workload{}, &v1alpha1.WorkloadList{}, &v1alpha1.Policy{}, &v1alpha1.PolicyList{},
		&v1alpha1.Node{}, &v1alpha1.NodeList{}, &v1alpha1.Link{}, &v1alpha1.LinkList{},
		&v1alpha1.Service{}, &v1alpha1.ServiceList{}, &v1alpha1.FloatingIP{}, &v1alpha1.FloatingIPList{},
		&v1alpha1.BackendPolicy{}, &v1alpha1.BackendPolicyList{}, &v1alpha1.FaultPolicy{}, &v1alpha1.FaultPolicyList{})
	standard := schema.GroupVersion(gateway.GroupVersion)
	scheme.AddKnownTypes(standard, &gateway.HTTPRoute{}, &gateway.HTTPRouteList{}, &gateway.GRPCRoute{}, &gateway.GRPCRouteList{},
		&gateway.TLSRoute{}, &gateway.TLSRouteList{}, &gateway.TCPRoute{}, &gateway.TCPRouteList{}, &gateway.ReferenceGrant{}, &gateway.ReferenceGrantList{},
		&gateway.Gateway{}, &gateway.GatewayList{}, &gateway.GatewayClass{}, &gateway.GatewayClassList{})
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Namespace{}, &corev1.NamespaceList{}, &corev1.Secret{}, &corev1.SecretList{})
	metav1.AddToGroupVersion(scheme, v1alpha1.GroupVersion)
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	metav1.AddToGroupVersion(scheme, standard)
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	client := func(gv schema.GroupVersion, path string) (*rest.RESTClient, error) {
		c := rest.CopyConfig(cfg)
		c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &gv, path, codecs
		c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
		c.QPS = -1 // our own server; it has its own limits
		return rest.RESTClientFor(c)
	}
	moire, err := client(v1alpha1.GroupVersion, "/apis")
	if err != nil {
		return clients{}, fmt.Errorf("control: client of moire.dev: %w", err)
	}
	core, err := client(corev1.SchemeGroupVersion, "/api")
	if err != nil {
		return clients{}, fmt.Errorf("control: client of namespaces: %w", err)
	}
	routes, err := client(standard, "/apis")
	if err != nil {
		return clients{}, fmt.Errorf("control: client of the Gateway API: %w", err)
	}
	return clients{moire: moire, core: core, gateway: routes}, nil
}

// newIntent prepares the shelves; wake is called after every change.
func newIntent(c clients, wake func()) (*intent, error) {
	var errs []error
	i := &intent{}
	shelveSome := func(client *rest.RESTClient, resource string, example runtime.Object, some fields.Selector) *shelf {
		informer := cache.NewSharedIndexInformer(
			cache.NewListWatchFromClient(client, resource, metav1.NamespaceAll, some), example, 0, nil)
		s := &shelf{list: informer.GetStore().List}
		s.changed.Store(true)
		note := func() { s.changed.Store(true); wake() }
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { note() }, UpdateFunc: func(_, _ any) { note() }, DeleteFunc: func(any) { note() },
		})
		errs = append(errs, err, informer.SetTransform(slim))
		i.informers = append(i.informers, informer)
		return s
	}
	shelve := func(client *rest.RESTClient, resource string, example runtime.Object) *shelf {
		return shelveSome(client, resource, example, fields.Everything())
	}
	i.domains = shelve(c.moire, "domains", &v1alpha1.Domain{})
	i.networks = shelve(c.moire, "networks", &v1alpha1.Network{})
	i.workloads = shelve(c.moire, "workloads", &v1alpha1.Workload{})
	i.policies = shelve(c.moire, "policies", &v1alpha1.Policy{})
	i.nodes = shelve(c.moire, "nodes", &v1alpha1.Node{})
	i.links = shelve(c.moire, "links", &v1alpha1.Link{})
	i.services = shelve(c.moire, "services", &v1alpha1.Service{})
	i.floating = shelve(c.moire, "floatingips", &v1alpha1.FloatingIP{})
	i.projects = shelve(c.core, "namespaces", &corev1.Namespace{})
	i.traffic = traffic{
		http: shelve(c.gateway, "httproutes", &gateway.HTTPRoute{}), grpc: shelve(c.gateway, "grpcroutes", &gateway.GRPCRoute{}),
		tls: shelve(c.gateway, "tlsroutes", &gateway.TLSRoute{}), tcp: shelve(c.gateway, "tcproutes", &gateway.TCPRoute{}),
		grants:   shelve(c.gateway, "referencegrants", &gateway.ReferenceGrant{}),
		backends: shelve(c.moire, "backendpolicies", &v1alpha1.BackendPolicy{}), faults: shelve(c.moire, "faultpolicies", &v1alpha1.FaultPolicy{}),
		gateways: shelve(c.gateway, "gateways", &gateway.Gateway{}), classes: shelve(c.gateway, "gatewayclasses", &gateway.GatewayClass{}),
		secrets: shelveSome(c.core, "secrets", &corev1.Secret{}, fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS))),
	}
	return i, errors.Join(errs...)
}

// slim drops what nobody here reads.
func slim(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	return o, nil
}

// run watches until ctx ends.
func (i *intent) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, informer := range i.informers {
		wg.Go(func() { informer.RunWithContext(ctx) })
	}
	wg.Wait()
}

// synced: everything that existed at the start is on the shelves.
func (i *intent) synced() bool {
	for _, informer := range i.informers {
		if !informer.HasSynced() {
			return false
		}
	}
	return true
}

// read puts the intent into next. Maps of kinds in which nothing changed are
// those of last. It reports whether anything changed.
func (i *intent) read(last, next *compile.Input) bool {
	changed := false
	read := func(s *shelf, keep, anew func()) {
		if s.changed.Swap(false) {
			changed = true
			anew()
			return
		}
		keep()
	}
	read(i.domains, func() { next.Domains = last.Domains }, func() {
		next.Domains = map[string]*v1alpha1.Domain{}
		each(i.domains, func(d *v1alpha1.Domain) { next.Domains[d.Name] = d })
	})
	read(i.nodes, func() { next.Nodes = last.Nodes }, func() {
		next.Nodes = map[string]*v1alpha1.Node{}
		each(i.nodes, func(n *v1alpha1.Node) { next.Nodes[n.Name] = n })
	})
	read(i.projects, func() { next.Projects, next.Modes, next.Labels = last.Projects, last.Modes, last.Labels }, func() {
		next.Projects, next.Modes, next.Labels = map[string]string{}, map[string]string{}, map[string]map[string]string{}
		each(i.projects, func(n *corev1.Namespace) {
			next.Labels[n.Name] = n.Labels
			if d := n.Labels[v1alpha1.DomainLabel]; d != "" {
				next.Projects[n.Name] = d
			}
			if mode := n.Annotations[v1alpha1.MTLSAnnotation]; mode != "" {
				next.Modes[n.Name] = mode
			}
		})
	})
	read(i.networks, func() { next.Networks = last.Networks }, func() { next.Networks = keyed[*v1alpha1.Network](i.networks) })
	read(i.workloads, func() { next.Workloads = last.Workloads }, func() { next.Workloads = keyed[*v1alpha1.Workload](i.workloads) })
	read(i.policies, func() { next.Policies = last.Policies }, func() {
		i.newest.policies = keyed[*v1alpha1.Policy](i.policies)
		next.Policies = declared(last.Policies, i.newest.policies, nil)
	})
	read(i.links, func() { next.Links = last.Links }, func() {
		i.newest.links = keyed[*v1alpha1.Link](i.links)
		next.Links = declared(last.Links, i.newest.links, nil)
	})
	read(i.services, func() { next.Services = last.Services }, func() {
		i.newest.services = keyed[*v1alpha1.Service](i.services)
		next.Services = declared(last.Services, i.newest.services, func(a, b *v1alpha1.Service) bool {
			return slices.Equal(a.Status.Addresses, b.Status.Addresses)
		})
	})
	read(i.floating, func() { next.FloatingIPs = last.FloatingIPs }, func() {
		i.newest.floating = keyed[*v1alpha1.FloatingIP](i.floating)
		next.FloatingIPs = declared(last.FloatingIPs, i.newest.floating, func(a, b *v1alpha1.FloatingIP) bool {
			return a.Status.Address == b.Status.Address
		})
	})
	i.traffic.read(read, &i.newest.traffic, last, next)
	return changed
}

// declared are the objects as the compiler shall see them: one of which only
// the status changed, and of that nothing that same (nil: nothing at all) looks
// at, is the object that it knows, and is not compiled again.
func declared[T interface {
	comparable
	metav1.Object
}](last, newest map[compile.Key]T, same func(a, b T) bool) map[compile.Key]T {
	var none T
	out := make(map[compile.Key]T, len(newest))
	for k, o := range newest {
		old := last[k]
		if old != none && o.GetGeneration() != 0 && old.GetGeneration() == o.GetGeneration() && old.GetUID() == o.GetUID() && (same == nil || same(old, o)) {
			o = old
		}
		out[k] = o
	}
	return out
}

func each[T any](s *shelf, do func(T)) {
	for _, o := range s.list() {
		if t, ok := o.(T); ok {
			do(t)
		}
	}
}

func keyed[T metav1.Object](s *shelf) map[compile.Key]T {
	out := map[compile.Key]T{}
	each(s, func(o T) { out[compile.Key{Project: o.GetNamespace(), Name: o.GetName()}] = o })
	return out
}
