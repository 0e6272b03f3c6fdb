package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/ipam"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// networks reads and writes Networks through the API: the last word on VNIs
// and blocks is the object itself, not what we heard of it.
type networks interface {
	get(ctx context.Context, k compile.Key) (*v1alpha1.Network, error)
	// putStatus fails with a conflict when the object changed since get.
	putStatus(ctx context.Context, n *v1alpha1.Network) error
	// holds: the owner, "Kind project/name", still wants an address of it.
	holds(ctx context.Context, by string, network compile.Key, address string) (bool, error)
}

// apiNetworks is networks over the API server.
type apiNetworks struct{ clients }

func (a apiNetworks) get(ctx context.Context, k compile.Key) (*v1alpha1.Network, error) {
	n := &v1alpha1.Network{}
	return n, a.moire.Get().Namespace(k.Project).Resource("networks").Name(k.Name).Do(ctx).Into(n)
}

func (a apiNetworks) putStatus(ctx context.Context, n *v1alpha1.Network) error {
	return a.moire.Put().Namespace(n.Namespace).Resource("networks").Name(n.Name).SubResource("status").Body(n).Do(ctx).Error()
}

// order is what one compile wants allocated and written.
type order struct {
	in    *compile.Input
	needs compile.Needs
	judgements
}

// allocator fulfils orders, one after the other, the latest first. Everything
// that it does is a compare-and-swap, so two of them do no harm; the lease
// only saves work.
type allocator struct {
	keeper   *keeper
	networks networks
	writer   writer
	log      *slog.Logger

	mu   sync.Mutex
	next *order
	bell chan struct{}

	said map[subject]time.Time // when; only of the goroutine of run

	numbering sync.Mutex // held while a VNI is asked for
}

func newAllocator(k *keeper, n networks, w writer, log *slog.Logger) *allocator {
	return &allocator{keeper: k, networks: n, writer: w, log: log, bell: make(chan struct{}, 1), said: map[subject]time.Time{}}
}

// offer replaces the order that waits.
func (a *allocator) offer(o *order) {
	a.mu.Lock()
	a.next = o
	a.mu.Unlock()
	select {
	case a.bell <- struct{}{}:
	default:
	}
}

func (a *allocator) take() *order {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.next
}

// run fulfils orders until ctx ends. A failed order is tried again after a
// second unless a newer one came.
func (a *allocator) run(ctx context.Context) {
	var done *order
	var again <-chan time.Time
	for {
		o := a.take()
		if o != nil && o != done {
			err := a.fulfil(ctx, o)
			if errors.Is(err, errLater) {
				done = o
				again = time.After(sayEvery)
				continue
			}
			if err == nil {
				done, again = o, nil
				continue
			}
			if ctx.Err() != nil {
				return
			}
			a.log.Warn("cannot allocate; trying again", "error", err)
			if !sleep(ctx, time.Second) {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-a.bell:
		case <-again:
			done, again = nil, nil
		}
	}
}

// errLater: everything was done, but for numbers in statuses that may wait.
var errLater = errors.New("the rest later")

// work is what is wanted of one Network.
type work struct {
	vni    bool
	blocks []compile.BlockNeed
	claims []compile.AddressNeed
	say    *condition
}

// fulfil does everything that it can and returns what went wrong.
func (a *allocator) fulfil(ctx context.Context, o *order) error {
	errs := []error{a.numbers(ctx, o)}
	all := map[compile.Key]*work{}
	of := func(k compile.Key) *work {
		if all[k] == nil {
			all[k] = &work{}
		}
		return all[k]
	}
	for _, k := range o.needs.VNIs {
		of(k).vni = true
	}
	for _, b := range o.needs.Blocks {
		of(b.Network).blocks = append(of(b.Network).blocks, b)
	}
	for k, list := range claims(o.in, o.needs) {
		of(k).claims = list
	}
	for k, c := range o.networks {
		of(k).say = &c
	}
	results, failed := a.together(ctx, o, all)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	errs = append(errs, failed)
	err := a.say(ctx, o, results)
	if errors.Join(errs...) == nil {
		return err
	}
	if errors.Is(err, errLater) {
		err = nil // it is tried again as a whole
	}
	return errors.Join(append(errs, err)...)
}

// together does what is wanted of Networks, several side by side.
func (a *allocator) together(ctx context.Context, o *order, all map[compile.Key]*work) (granted, error) {
	list := slices.SortedFunc(keys(all), compareKeys)
	got, errs := make([]granted, len(list)), make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(writers)
	for i, k := range list {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			got[i], errs[i] = a.network(ctx, o.in, k, *all[k])
			return nil
		})
	}
	errs = append(errs, g.Wait())
	results := granted{}
	for _, one := range got { // in the order of the Networks
		for s, x := range one {
			if results[s] == nil {
				results[s] = &addresses{}
			}
			results[s].given = append(results[s].given, x.given...)
			results[s].lost = append(results[s].lost, x.lost...)
		}
	}
	return results, errors.Join(errs...)
}

// numbers allocates what no object holds: identities and node numbers.
func (a *allocator) numbers(ctx context.Context, o *order) error {
	var errs []error
	nodes, identities := map[string]uint16{}, map[compile.IdentityKey]policy.Identity{}
	for _, node := range o.needs.NodeNumbers {
		n, err := a.keeper.nodes.Get(ctx, node)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		nodes[node] = uint16(n)
	}
	flush := func() {
		if len(nodes) == 0 && len(identities) == 0 {
			return
		}
		a.keeper.note(func(all *allocations) {
			for node, n := range nodes {
				all.nodes[node] = n
			}
			for k, n := range identities {
				all.identities[k] = n
			}
		})
		clear(nodes)
		clear(identities)
	}
	last := time.Now()
	for _, id := range o.needs.Identities {
		if ctx.Err() != nil {
			break
		}
		k := compile.KeyOf(id)
		n, err := a.keeper.identities.Get(ctx, string(k))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		identities[k] = policy.Identity(n)
		if time.Since(last) > 100*time.Millisecond { // many: let the first ones through
			flush()
			last = time.Now()
		}
	}
	flush()
	return errors.Join(errs...)
}

// network writes what is wanted of one Network, in one change.
func (a *allocator) network(ctx context.Context, in *compile.Input, k compile.Key, w work) (granted, error) {
	for range 10 {
		n, err := a.networks.get(ctx, k)
		if apierrors.IsNotFound(err) {
			return nil, nil // deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("control: read Network %s: %w", k, err)
		}
		changed, got, err := a.claim(ctx, in, n, w.claims)
		if err != nil {
			return nil, err
		}
		if w.vni && n.Status.VNI == 0 && n.DeletionTimestamp == nil {
			number, err := a.vni(ctx, n)
			if err != nil {
				return nil, err
			}
			n.Status.VNI, changed = int32(number), true
		}
		for _, b := range w.blocks {
			if unwritten(in, n) {
				break // its owner is told first, so that every node knows
			}
			added, err := addBlock(in, n, b)
			if errors.Is(err, ipam.ErrExhausted) {
				a.log.Warn("a Network is out of addresses", "network", k.String(), "error", err)
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("control: block for Network %s: %w", k, err)
			}
			changed = changed || added
		}
		if w.say != nil && setCondition(&n.Status.Conditions, *w.say, n.Generation) {
			changed = true
		}
		if !changed {
			return got, nil
		}
		err = a.networks.putStatus(ctx, n)
		switch {
		case err == nil:
			return got, nil
		case apierrors.IsNotFound(err):
			return nil, nil
		case !apierrors.IsConflict(err):
			return nil, fmt.Errorf("control: write status of Network %s: %w", k, err)
		}
	}
	return nil, fmt.Errorf("control: Network %s keeps changing; trying again", k)
}

// vni asks for one at a time: several would only get in each other's way.
func (a *allocator) vni(ctx context.Context, n *v1alpha1.Network) (uint32, error) {
	a.numbering.Lock()
	defer a.numbering.Unlock()
	return a.keeper.vnis.Get(ctx, vniOwner(n))
}

// vniOwner is one life of a Network: a new object of the same name is another.
func vniOwner(n *v1alpha1.Network) string {
	return fmt.Sprintf("%s/%s %s", n.Namespace, n.Name, n.UID)
}

// addBlock gives the node one more block, unless it got one since the need
// was found.
func addBlock(in *compile.Input, n *v1alpha1.Network, need compile.BlockNeed) (bool, error) {
	count := func(blocks []v1alpha1.Block) (c int) {
		for _, b := range blocks {
			if p, err := netip.ParsePrefix(b.CIDR); err == nil && b.Node == need.Node && p.Addr().Is4() != need.IPv6 {
				c++
			}
		}
		return c
	}
	seen := in.Networks[need.Network]
	if seen == nil || count(n.Status.Blocks) > count(seen.Status.Blocks) {
		return false, nil
	}
	var taken []netip.Prefix
	for _, b := range n.Status.Blocks {
		p, err := netip.ParsePrefix(b.CIDR)
		if err != nil {
			return false, fmt.Errorf("status.blocks holds %q, which is not a CIDR; correct the status", b.CIDR)
		}
		taken = append(taken, p)
	}
	block, err := ipam.Carve(spaceOf(in, n), taken, need.IPv6)
	if err != nil {
		return false, err
	}
	n.Status.Blocks = append(n.Status.Blocks, v1alpha1.Block{CIDR: block.String(), Node: need.Node})
	slices.SortFunc(n.Status.Blocks, func(a, b v1alpha1.Block) int {
		return cmp.Or(comparePrefixes(a.CIDR, b.CIDR), cmp.Compare(a.Node, b.Node))
	})
	return true, nil
}

func comparePrefixes(a, b string) int {
	p, errP := netip.ParsePrefix(a)
	q, errQ := netip.ParsePrefix(b)
	if errP != nil || errQ != nil {
		return cmp.Compare(a, b)
	}
	return p.Compare(q)
}

// spaceOf is what a Network declares of its addresses; those that declared
// Workloads name and that Services and FloatingIPs have count as reserved.
func spaceOf(in *compile.Input, n *v1alpha1.Network) ipam.Space {
	var s ipam.Space
	for _, text := range n.Spec.Prefixes {
		if p, err := v1alpha1.ParsePrefix(text); err == nil {
			s.Prefixes = append(s.Prefixes, p)
		}
	}
	parse := func(texts []string) (out []snapshot.Range) {
		for _, text := range texts {
			if r, err := v1alpha1.ParseRange(text); err == nil {
				out = append(out, snapshot.Range{First: r.First, Last: r.Last})
			}
		}
		return out
	}
	s.Allocation, s.Reserved, s.Static = parse(n.Spec.Allocation), parse(n.Spec.Reserved), parse(n.Spec.Static)
	for _, t := range n.Status.Taken {
		s.Reserved = append(s.Reserved, parse([]string{t.Address})...)
	}
	for k, w := range in.Workloads {
		if k.Project != n.Namespace {
			continue
		}
		for _, i := range w.Spec.Interfaces {
			if i.Network == n.Name {
				s.Reserved = append(s.Reserved, parse(i.Addresses)...)
			}
		}
	}
	return s
}
