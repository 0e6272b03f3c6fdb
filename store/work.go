package store

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// startTimeout bounds how long the server may take until everything is served.
	startTimeout = 90 * time.Second
	// lastBuiltIn is a binding of a built-in role that is made after all roles.
	lastBuiltIn = "system:public-info-viewer"
)

// work is what runs beside the server: install our objects, say ready, then
// delete what belongs to deleted namespaces and owners until ctx ends.
func (s *Store) work(ctx context.Context, loopback *rest.Config, files keyFiles, addr net.Addr, logs logs) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.world.run(ctx) })
	g.Go(func() error { return s.start(ctx, g, loopback, files, addr, logs) })
	return g.Wait()
}

// start makes everything ready and then starts the controllers.
func (s *Store) start(ctx context.Context, g *errgroup.Group, loopback *rest.Config, files keyFiles, addr net.Addr, logs logs) error {
	if err := s.install(ctx, loopback); err != nil {
		return err
	}
	clients, err := newClients(loopback)
	if err != nil {
		return err
	}
	if err := s.writeKubeconfig(files, addr); err != nil {
		return err
	}
	peers, err := files.peerClient()
	if err != nil {
		return fmt.Errorf("store: client of other processes: %w", err)
	}
	s.peers.Store(peers)
	client := rest.CopyConfig(loopback)
	client.ContentType, client.AcceptContentTypes = "", "" // callers choose; CRDs speak JSON
	client.QPS, client.Burst = -1, 0                       // priority and fairness decides, not the client
	s.client.Store(client)
	logs.started()
	close(s.ready)
	s.log.Info("API server is ready", "address", addr.String(), "kubeconfig", s.cfg.KubeconfigPath)

	g.Go(func() error {
		if err := s.awaitHooks(ctx, loopback); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	})
	g.Go(func() error { return deleteNamespaces(ctx, clients) })
	g.Go(func() error { return collectGarbage(ctx, clients) })
	g.Go(func() error { return aggregateRoles(ctx, clients) })
	return nil
}

// install waits for the server and applies our objects.
func (s *Store) install(ctx context.Context, loopback *rest.Config) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("the API server was not ready after %s; is the machine overloaded, or etcd out of reach?", startTimeout))
	defer cancel()
	client, err := kubernetes.NewForConfig(loopback)
	if err != nil {
		return fmt.Errorf("store: loopback client: %w", err)
	}
	err = untilOK(ctx, "API server", func(ctx context.Context) error {
		ask := client.RESTClient().Get().AbsPath("/readyz")
		// Built-in roles are looked after a second late, by a clock. After a
		// restart they are there, and nobody has to wait for that.
		if _, err := client.RbacV1().ClusterRoleBindings().Get(ctx, lastBuiltIn, metav1.GetOptions{}); err == nil {
			ask = ask.Param("exclude", "poststarthook/rbac/bootstrap-roles")
		}
		return ask.Do(ctx).Error()
	})
	if err != nil {
		return err
	}
	return applyAll(ctx, loopback)
}

// untilOK calls f until it succeeds or ctx ends.
func untilOK(ctx context.Context, what string, f func(context.Context) error) error {
	const pause = 25 * time.Millisecond
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("store: %s: %w (last: %w)", what, context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}
