package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	memorydiscovery "k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace/deletion"
)

const (
	// namespaceGrace lets other API servers on the same etcd see that a
	// namespace is going, so that nothing is created in it behind our back.
	namespaceGrace = time.Second
	// collectWorkers delete in parallel.
	collectWorkers = 2
	// collectRefresh is how often we look for new kinds to watch.
	collectRefresh = 30 * time.Second
)

// clients are the loopback clients of the controllers below.
type clients struct {
	kube     *kubernetes.Clientset
	metadata metadata.Interface
}

func newClients(loopback *rest.Config) (clients, error) {
	config := rest.CopyConfig(loopback)
	config.QPS = -1
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return clients{}, fmt.Errorf("store: loopback client: %w", err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return clients{}, fmt.Errorf("store: loopback metadata client: %w", err)
	}
	return clients{kube, meta}, nil
}

// deleteNamespaces empties namespaces that are being deleted and lets them go.
func deleteNamespaces(ctx context.Context, c clients) error {
	queue := workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 30*time.Second))
	defer queue.ShutDown()
	factory := metadatainformer.NewSharedInformerFactory(c.metadata, 0)
	informer := factory.ForResource(corev1.SchemeGroupVersion.WithResource("namespaces")).Informer()
	enqueue := func(o any) {
		if ns, ok := o.(*metav1.PartialObjectMetadata); ok && ns.DeletionTimestamp != nil {
			queue.AddAfter(ns.Name, namespaceGrace)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, o any) { enqueue(o) },
	})
	if err != nil {
		return fmt.Errorf("store: watch namespaces: %w", err)
	}
	find, err := knownKinds(ctx, c.kube.Discovery())
	if err != nil {
		return nil // ctx ended
	}
	deleter := deletion.NewNamespacedResourcesDeleter(ctx, c.kube.CoreV1().Namespaces(), c.metadata, c.kube.CoreV1(), find, corev1.FinalizerKubernetes)

	factory.Start(ctx.Done())
	defer factory.Shutdown()
	var workers sync.WaitGroup
	defer workers.Wait()
	for range collectWorkers {
		workers.Go(func() {
			for {
				name, stop := queue.Get()
				if stop {
					return
				}
				if err := deleter.Delete(ctx, name); err != nil {
					var remaining *deletion.ResourcesRemainingError
					if errors.As(err, &remaining) {
						queue.AddAfter(name, time.Second)
					} else {
						queue.AddRateLimited(name)
					}
				} else {
					queue.Forget(name)
				}
				queue.Done(name)
			}
		})
	}
	<-ctx.Done()
	queue.ShutDown()
	return nil
}

// knownKinds returns a function that lists the namespaced kinds of the server.
// It has succeeded once before this returns, and falls back to what it knew:
// the deleter ends the process if it gets nothing the first time.
func knownKinds(ctx context.Context, d discovery.DiscoveryInterface) (func() ([]*metav1.APIResourceList, error), error) {
	var mu sync.Mutex
	var known []*metav1.APIResourceList
	find := func() ([]*metav1.APIResourceList, error) {
		found, err := d.ServerPreferredNamespacedResources()
		mu.Lock()
		defer mu.Unlock()
		if err == nil && len(found) > 0 {
			known = found
		}
		return known, err
	}
	err := untilOK(ctx, "discover kinds", func(context.Context) error {
		_, err := find()
		return err
	})
	return find, err
}

// metadataOnly gives the garbage collector informers that keep no content.
type metadataOnly struct {
	metadatainformer.SharedInformerFactory
}

func (m metadataOnly) ForResource(r schema.GroupVersionResource) (informers.GenericInformer, error) {
	return m.SharedInformerFactory.ForResource(r), nil
}

// collectGarbage deletes objects whose owners are gone, and answers foreground
// and orphan deletion.
func collectGarbage(ctx context.Context, c clients) error {
	// Without "start", the collector would wait for informers that it never uses.
	started := make(chan struct{})
	close(started)
	ignored := map[schema.GroupResource]struct{}{
		{Group: "coordination.k8s.io", Resource: "leases"}:         {},
		{Group: "apiregistration.k8s.io", Resource: "apiservices"}: {},
	}
	for r := range garbagecollector.DefaultIgnoredResources() {
		ignored[r] = struct{}{}
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memorydiscovery.NewMemCacheClient(c.kube.Discovery()))
	factory := metadataOnly{metadatainformer.NewSharedInformerFactory(c.metadata, 0)}
	gc, err := garbagecollector.NewGarbageCollector(ctx, c.kube, c.metadata, mapper, ignored, factory, started)
	if err != nil {
		return fmt.Errorf("store: garbage collector: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { gc.Run(ctx, collectWorkers, startTimeout) })
	wg.Go(func() { gc.Sync(ctx, c.kube.Discovery(), collectRefresh) })
	wg.Wait()
	return nil
}

// aggregateRoles keeps the roles admin, edit and view up to date with the
// roles that aggregate into them, such as moire-tenant-admin.
func aggregateRoles(ctx context.Context, c clients) error {
	factory := informers.NewSharedInformerFactory(c.kube, 0)
	controller := clusterroleaggregation.NewClusterRoleAggregation(factory.Rbac().V1().ClusterRoles(), c.kube.RbacV1())
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	controller.Run(ctx, 1)
	return nil
}
