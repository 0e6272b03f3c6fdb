package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
)

// TestKeysReachNodes: the keys that a Policy names come to the nodes whose
// Workloads it protects, and to no other; without them the Policy says so.
func TestKeysReachNodes(t *testing.T) {
	i, g := newIssuer(t)
	i.says(text("<html>not yet"))
	b := newBench(newMemory(), oneNetwork(), "a")
	b.fetcher = newFetcher(b.keeper, g, silent(), time.Now)
	defer b.run(t)()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.fetcher.run(ctx) })
	defer running.Wait()
	defer cancel()
	b.world.connected("n1")
	b.world.report("n1", someReport("web"))
	b.set("policies", &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: v1alpha1.PolicySpec{
		Ingress: []v1alpha1.Rule{{Action: "allow", JWT: &v1alpha1.JWTMatch{Issuer: "i", JWKSURI: i.URL}}}}})
	eventually(t, "the complaint", func() error {
		b.heard()
		f := b.current.Load()
		if f == nil {
			return errors.New("no facts yet")
		}
		if p := f.problems["Policy shop/web"]; !strings.Contains(p.Reason, "not a JWK set") || p.Warning {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	i.says(text(aKeySet))
	eventually(t, "the keys", func() error {
		b.heard()
		s, other := b.snapshot("n1"), b.snapshot("n2")
		if s == nil || other == nil {
			return errors.New("no snapshots")
		}
		if k := s.KeySets[i.URL]; !strings.Contains(k.JSON, "Ed25519") || k.Until == 0 || len(other.KeySets) != 0 {
			return fmt.Errorf("n1 has %+v, n2 %+v", s.KeySets, other.KeySets)
		}
		return nil
	})
	if p := b.current.Load().problems["Policy shop/web"]; p.Code == codeNoKeys {
		t.Errorf("it complains on: %+v", p)
	}
}
