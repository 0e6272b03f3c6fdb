package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
)

const (
	// retireAfter is how long something must be unused before it is taken
	// back: nobody may remember it any more.
	retireAfter = 5 * time.Minute
	retireEvery = 30 * time.Second
)

// retirer takes back what nobody used for a while: identity, node and network
// numbers, and the blocks of nodes that were deleted.
type retirer struct {
	keeper   *keeper
	networks networks
	facts    func() *facts
	log      *slog.Logger
	now      func() time.Time

	unused map[string]time.Time // since when, by kind and owner
	lastIn *compile.Input
	wanted map[compile.IdentityKey]bool
}

func (r *retirer) run(ctx context.Context) {
	r.unused = map[string]time.Time{}
	for sleep(ctx, retireEvery) {
		if err := r.pass(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("cannot take back what is not used any more; trying again", "error", err)
		}
	}
}

// pass looks once. Each thing must be seen unused for retireAfter.
func (r *retirer) pass(ctx context.Context) error {
	f := r.facts()
	if f == nil || f.in == r.lastIn && len(r.unused) == 0 {
		return nil
	}
	if f.in != r.lastIn {
		r.wanted = wantedIdentities(f.in)
		r.lastIn = f.in
	}
	seen := map[string]bool{}
	due := func(kind, owner string) bool {
		id := kind + " " + owner
		seen[id] = true
		since, known := r.unused[id]
		if !known {
			r.unused[id] = r.now()
			return false
		}
		return r.now().Sub(since) >= retireAfter
	}
	err := errors.Join(r.numbers(ctx, f, due), r.vnis(ctx, f, due), r.blocks(ctx, f, due), r.taken(ctx, f, due))
	for id := range r.unused {
		if !seen[id] {
			delete(r.unused, id)
		}
	}
	return err
}

// wantedIdentities are those that would be allocated if there were none.
func wantedIdentities(in *compile.Input) map[compile.IdentityKey]bool {
	none := *in
	none.Identities = nil
	out := map[compile.IdentityKey]bool{}
	for _, id := range compile.NeedsOf(&none).Identities {
		out[compile.KeyOf(id)] = true
	}
	return out
}

func (r *retirer) numbers(ctx context.Context, f *facts, due func(kind, owner string) bool) error {
	alloc := r.keeper.allocations()
	var identities []compile.IdentityKey
	var nodes []string
	for k := range alloc.identities {
		if !r.wanted[k] && due("identity", string(k)) {
			identities = append(identities, k)
		}
	}
	for node := range alloc.nodes {
		if f.in.Nodes[node] == nil && due("node", node) {
			nodes = append(nodes, node)
		}
	}
	if len(identities)+len(nodes) == 0 {
		return nil
	}
	// First nobody uses them any more, then they are free.
	r.keeper.note(func(all *allocations) {
		for _, k := range identities {
			delete(all.identities, k)
		}
		for _, node := range nodes {
			delete(all.nodes, node)
		}
	})
	var errs []error
	for _, k := range identities {
		errs = append(errs, r.keeper.identities.Release(ctx, string(k)))
	}
	for _, node := range nodes {
		errs = append(errs, r.keeper.nodes.Release(ctx, node))
	}
	if err := errors.Join(errs...); err != nil {
		// What was not released is still known to the rows; use it again.
		return errors.Join(err, r.keeper.loadAllocations(ctx))
	}
	r.log.Info("numbers taken back", "identities", len(identities), "nodes", len(nodes))
	return nil
}

func (r *retirer) vnis(ctx context.Context, f *facts, due func(kind, owner string) bool) error {
	all, err := r.keeper.vnis.All(ctx)
	if err != nil {
		return err
	}
	used := make(map[string]bool, len(f.in.Networks))
	numbers := make(map[uint32]bool, len(f.in.Networks))
	for _, n := range f.in.Networks {
		used[vniOwner(n)] = true
		numbers[uint32(n.Status.VNI)] = true
	}
	var errs []error
	for owner, number := range all {
		if used[owner] || numbers[number] || !due("vni", owner) {
			continue
		}
		if err := r.keeper.vnis.Release(ctx, owner); err != nil {
			errs = append(errs, err)
			continue
		}
		r.log.Info("network id taken back", "vni", number, "network", owner)
	}
	return errors.Join(errs...)
}

// blocks takes back the blocks of nodes that do not exist any more.
func (r *retirer) blocks(ctx context.Context, f *facts, due func(kind, owner string) bool) error {
	var errs []error
	for k, n := range f.in.Networks {
		dead := map[string]bool{}
		for _, b := range n.Status.Blocks {
			if f.in.Nodes[b.Node] == nil && due("blocks", k.String()+" "+b.Node) {
				dead[b.Node] = true
			}
		}
		if len(dead) == 0 {
			continue
		}
		fresh, err := r.networks.get(ctx, k)
		if err == nil {
			fresh.Status.Blocks = slices.DeleteFunc(fresh.Status.Blocks, func(b v1alpha1.Block) bool { return dead[b.Node] })
			err = r.networks.putStatus(ctx, fresh)
		}
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("control: take back blocks of Network %s: %w", k, err))
			continue
		}
		r.log.Info("blocks of deleted nodes taken back", "network", k.String())
	}
	return errors.Join(errs...)
}

// taken gives back addresses that no Service or FloatingIP has.
func (r *retirer) taken(ctx context.Context, f *facts, due func(kind, owner string) bool) error {
	var errs []error
	for k, n := range f.in.Networks {
		unused := map[v1alpha1.Taken]bool{}
		for _, t := range n.Status.Taken {
			if !has(f.in, k, t) && due("taken", k.String()+" "+t.Address+" "+t.By) {
				unused[t] = true
			}
		}
		if len(unused) == 0 {
			continue
		}
		fresh, err := r.networks.get(ctx, k)
		if err == nil && r.facts() != f {
			continue // the facts may be too old by now; next time
		}
		if err == nil {
			fresh.Status.Taken = slices.DeleteFunc(fresh.Status.Taken, func(t v1alpha1.Taken) bool { return unused[t] })
			err = r.networks.putStatus(ctx, fresh)
		}
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("control: give back addresses of Network %s: %w", k, err))
		}
	}
	return errors.Join(errs...)
}
