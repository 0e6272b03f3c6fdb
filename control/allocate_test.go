package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/snapshot"
)

var networksResource = v1alpha1.GroupVersion.WithResource("networks").GroupResource()

// shelfOfNetworks is networks in memory, with resourceVersions.
type shelfOfNetworks struct {
	mu   sync.Mutex
	all  map[compile.Key]*v1alpha1.Network
	fail func() error
	puts int
	held map[string]bool // "owner address"
}

func (s *shelfOfNetworks) get(_ context.Context, k compile.Key) (*v1alpha1.Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return nil, err
		}
	}
	n := s.all[k]
	if n == nil {
		return nil, apierrors.NewNotFound(networksResource, k.Name)
	}
	return n.DeepCopy(), nil
}

func (s *shelfOfNetworks) putStatus(_ context.Context, n *v1alpha1.Network) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return err
		}
	}
	k := compile.Key{Project: n.Namespace, Name: n.Name}
	old := s.all[k]
	if old == nil || old.ResourceVersion != n.ResourceVersion {
		return apierrors.NewConflict(networksResource, n.Name, errors.New("changed"))
	}
	next := n.DeepCopy()
	next.ResourceVersion += "x"
	s.all[k] = next
	s.puts++
	return nil
}

// input is what an informer would say now.
func (s *shelfOfNetworks) input() map[compile.Key]*v1alpha1.Network {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.all)
}

func aNetwork(project, name string, prefixes ...string) *v1alpha1.Network {
	return &v1alpha1.Network{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name, UID: apitypes.UID(project + name), ResourceVersion: "1"},
		Spec: v1alpha1.NetworkSpec{Prefixes: prefixes}}
}

func (s *shelfOfNetworks) holds(_ context.Context, by string, _ compile.Key, address string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[by+" "+address], nil
}

// noWriter writes no status.
type noWriter struct{}

func (noWriter) write(context.Context, subject, *saying, addresses) error { return nil }

func loadedKeeper(t interface{ Fatal(...any) }, rows *memory, self string) *keeper {
	k := newKeeper(rows, self, newWorld(self, time.Now, func() {}), silent(), time.Now, func() {})
	if err := k.load(context.Background()); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestFulfil(t *testing.T) {
	front := compile.Key{Project: "shop", Name: "front"}
	s := &shelfOfNetworks{all: map[compile.Key]*v1alpha1.Network{front: aNetwork("shop", "front", "10.0.0.0/24", "fd00::/64")}}
	k := loadedKeeper(t, newMemory(), "a")
	a := newAllocator(k, s, noWriter{}, silent())
	id := snapshot.Identity{Domain: "acme", Project: "shop", Account: "default"}
	o := &order{in: &compile.Input{Networks: s.input()}, needs: compile.Needs{
		VNIs: []compile.Key{front, {Project: "shop", Name: "deleted"}}, Identities: []snapshot.Identity{id}, NodeNumbers: []string{"n1", "n2"},
		Blocks: []compile.BlockNeed{{Network: front, Node: "n1"}, {Network: front, Node: "n2"}, {Network: front, Node: "n1", IPv6: true}}},
		judgements: judgements{networks: map[compile.Key]condition{front: {ok: true, reason: "Ready", message: "m"}}}}
	for range 3 { // the same order again changes nothing
		if err := a.fulfil(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	n := s.all[front]
	var blocks []string
	for _, b := range n.Status.Blocks {
		blocks = append(blocks, b.CIDR+" "+b.Node)
	}
	if n.Status.VNI != firstVNI || !slices.Equal(blocks, []string{"10.0.0.0/28 n1", "10.0.0.16/28 n2", "fd00::/122 n1"}) || s.puts != 1 {
		t.Errorf("got VNI %d, blocks %v in %d writes", n.Status.VNI, blocks, s.puts)
	}
	if c := n.Status.Conditions; len(c) != 1 || c[0].Status != metav1.ConditionTrue {
		t.Errorf("conditions are %+v", c)
	}
	alloc := k.allocations()
	if alloc.identities[compile.KeyOf(id)] != firstIdentity || alloc.nodes["n1"] != 1 || alloc.nodes["n2"] != 2 {
		t.Errorf("allocations are %+v", alloc)
	}
}

// TestOldNeedGetsNoBlock: a need that was found before the last block was
// given is not answered with another.
func TestOldNeedGetsNoBlock(t *testing.T) {
	n := aNetwork("shop", "front", "10.0.0.0/24")
	need := compile.BlockNeed{Network: compile.Key{Project: "shop", Name: "front"}, Node: "n1"}
	in := &compile.Input{Networks: map[compile.Key]*v1alpha1.Network{need.Network: n.DeepCopy()}}
	for i, want := range []bool{true, false, false} {
		if got, err := addBlock(in, n, need); err != nil || got != want {
			t.Fatalf("try %d: got %v, %v", i, got, err)
		}
	}
	n.Status.Blocks = append(n.Status.Blocks, v1alpha1.Block{CIDR: "x", Node: "n2"})
	in.Networks[need.Network] = n.DeepCopy()
	if _, err := addBlock(in, n, need); err == nil {
		t.Error("a damaged list of blocks is used")
	}
}

func TestSpaceReservesWhatIsDeclared(t *testing.T) {
	n := aNetwork("shop", "front", "10.0.0.0/24")
	n.Spec.Reserved, n.Spec.Static, n.Spec.Allocation = []string{"10.0.0.2"}, []string{"10.0.0.3-10.0.0.4"}, []string{"10.0.0.0/25"}
	w := func(project, network, address string) *v1alpha1.Workload {
		return &v1alpha1.Workload{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: address},
			Spec: v1alpha1.WorkloadSpec{Interfaces: []v1alpha1.Interface{{Network: network, Addresses: []string{address}}}}}
	}
	in := &compile.Input{Workloads: map[compile.Key]*v1alpha1.Workload{}}
	for _, o := range []*v1alpha1.Workload{w("shop", "front", "10.0.0.9"), w("bank", "front", "10.0.0.10"), w("shop", "back", "10.0.0.11")} {
		in.Workloads[compile.Key{Project: o.Namespace, Name: o.Name}] = o
	}
	s := spaceOf(in, n)
	if len(s.Reserved) != 2 || s.Reserved[1].First != netip.MustParseAddr("10.0.0.9") || len(s.Static) != 1 || len(s.Allocation) != 1 {
		t.Errorf("space is %+v", s)
	}
}

// TestAllocatorsCompete: two processes that both believe they lead, on views
// that lag, with API and rows that fail: no number and no address block has
// two owners.
func TestAllocatorsCompete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := newMemory()
		s := &shelfOfNetworks{all: map[compile.Key]*v1alpha1.Network{}}
		for i := range 4 {
			n := aNetwork("shop", fmt.Sprint("n", i), "10.0.0.0/26")
			s.all[compile.Key{Project: "shop", Name: n.Name}] = n
		}
		seed := rapid.SliceOfN(rapid.IntRange(0, 9), 60, 60).Draw(t, "faults")
		at := 0
		var mu sync.Mutex
		fail := func() error {
			mu.Lock()
			defer mu.Unlock()
			if at++; at < len(seed) && seed[at] == 0 {
				return errors.New("crash")
			}
			return nil
		}
		rows.fail, s.fail = func(string, string) error { return fail() }, fail
		var wg sync.WaitGroup
		old := s.input()
		for p := range 3 {
			mine := compile.Needs{Identities: []snapshot.Identity{{Domain: "d", Project: "p", Account: fmt.Sprint("own", p)}, {Domain: "d", Project: "p", Account: "shared"}}, NodeNumbers: []string{fmt.Sprint("node", p), "node"}}
			for k := range old {
				mine.VNIs = append(mine.VNIs, k)
				mine.Blocks = append(mine.Blocks, compile.BlockNeed{Network: k, Node: fmt.Sprint("node", p)}, compile.BlockNeed{Network: k, Node: "node"})
			}
			wg.Go(func() {
				k := newKeeper(rows, fmt.Sprint(p), newWorld("", time.Now, func() {}), silent(), time.Now, func() {})
				for k.load(context.Background()) != nil {
				}
				a := newAllocator(k, s, noWriter{}, silent())
				for range 30 {
					if a.fulfil(context.Background(), &order{in: &compile.Input{Networks: old}, needs: mine}) == nil {
						return
					}
				}
			})
		}
		wg.Wait()
		rows.fail, s.fail = nil, nil
		unique(t, s, loadedKeeper(t, rows, "judge"))
	})
}

func unique(t *rapid.T, s *shelfOfNetworks, k *keeper) {
	vnis := map[int32]string{}
	for key, n := range s.all {
		if n.Status.VNI == 0 {
			t.Fatalf("%s has no network id", key)
		}
		if other := vnis[n.Status.VNI]; other != "" {
			t.Fatalf("%s and %s share network id %d", key, other, n.Status.VNI)
		}
		vnis[n.Status.VNI] = key.String()
		var taken []netip.Prefix
		for _, b := range n.Status.Blocks {
			p := netip.MustParsePrefix(b.CIDR)
			for _, o := range taken {
				if o.Overlaps(p) {
					t.Fatalf("%s: %s and %s overlap", key, o, p)
				}
			}
			taken = append(taken, p)
		}
		if len(taken) != 4 { // node0, node1, node2, node
			t.Fatalf("%s has blocks %v, want one for each node", key, n.Status.Blocks)
		}
	}
	alloc := k.allocations()
	seen := map[uint16]bool{}
	for node, n := range alloc.nodes {
		if seen[n] {
			t.Fatalf("node number %d of %s is given twice", n, node)
		}
		seen[n] = true
	}
	if len(alloc.nodes) != 4 || len(alloc.identities) != 4 {
		t.Fatalf("allocations are %+v", alloc)
	}
}

func TestExhaustedNetworkHoldsUpNobody(t *testing.T) {
	small, large := compile.Key{Project: "p", Name: "a-small"}, compile.Key{Project: "p", Name: "large"}
	s := &shelfOfNetworks{all: map[compile.Key]*v1alpha1.Network{small: aNetwork("p", "a-small", "10.0.0.0/32"), large: aNetwork("p", "large", "10.0.0.0/24")}}
	a := newAllocator(loadedKeeper(t, newMemory(), "a"), s, noWriter{}, silent())
	err := a.fulfil(t.Context(), &order{in: &compile.Input{Networks: s.input()}, needs: compile.Needs{
		Blocks: []compile.BlockNeed{{Network: small, Node: "n"}, {Network: large, Node: "n"}}}})
	if err != nil || len(s.all[large].Status.Blocks) != 1 || len(s.all[small].Status.Blocks) != 0 {
		t.Errorf("got %v, %v, %v", err, s.all[small].Status, s.all[large].Status)
	}
}

// TestAllocatorTriesAgain: an order that failed is tried again, and the newest
// order counts.
func TestAllocatorTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := compile.Key{Project: "shop", Name: "front"}
		broken := true
		s := &shelfOfNetworks{all: map[compile.Key]*v1alpha1.Network{k: aNetwork("shop", "front", "10.0.0.0/24")}}
		s.fail = func() error {
			if broken {
				return errors.New("broken")
			}
			return nil
		}
		a := newAllocator(loadedKeeper(t, newMemory(), "a"), s, noWriter{}, silent())
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { a.run(ctx) })
		a.offer(&order{in: &compile.Input{Networks: s.input()}, needs: compile.Needs{VNIs: []compile.Key{k}}})
		time.Sleep(5 * time.Second)
		s.mu.Lock()
		broken = false
		s.mu.Unlock()
		time.Sleep(2 * time.Second)
		if s.input()[k].Status.VNI == 0 {
			t.Error("no network id after the API works again")
		}
		cancel()
		wg.Wait()
	})
}
