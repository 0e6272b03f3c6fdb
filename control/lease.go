package control

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"moire.dev/moire/api/v1alpha1"
)

// Lease of the allocators: another takes over at most leaseDuration, and a
// little more than retryPeriod, after the last one fell silent. Two that believe
// to have it at the same time do no harm, so it may be short.
const (
	leaseName     = "moired"
	leaseDuration = 3500 * time.Millisecond
	renewDeadline = 2500 * time.Millisecond
	retryPeriod   = 500 * time.Millisecond
)

// lead does the work while this process holds the lease, again and again until
// ctx ends. self must be the same after a restart, so that it takes its own
// lease up at once.
func lead(ctx context.Context, cfg *rest.Config, self string, leading *atomic.Bool, log *slog.Logger, work func(context.Context)) error {
	client, err := coordination.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("control: client of leases: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: leaseName},
		Client:     client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: self},
	}
	terms := make(chan context.Context)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case term := <-terms:
				log.Info("this process allocates", "process", self)
				leading.Store(true)
				work(term)
				leading.Store(false)
			}
		}
	})
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
			ReleaseOnCancel: true, Name: leaseName,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(term context.Context) {
					select {
					case terms <- term:
					case <-term.Done():
					}
				},
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return fmt.Errorf("control: leader election: %w", err)
		}
		elector.Run(ctx)
	}
	return nil
}
