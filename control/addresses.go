package control

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
)

// Kinds that have addresses of their own.
const (
	kindService    = "Service"
	kindFloatingIP = "FloatingIP"
)

// addresses is what a Service or FloatingIP gets: the zero value nothing new.
type addresses struct {
	given []given
	// lost are addresses that somebody else has.
	lost []string
}

// given is one address in one Network.
type given struct {
	network compile.Key
	address netip.Addr
}

// wants reports whether the Service lists the Network and, if it names
// addresses there, this one.
func wants(s *v1alpha1.Service, network, address string) bool {
	return slices.ContainsFunc(s.Spec.Networks, func(n v1alpha1.ServiceNetwork) bool {
		return n.Network == network && (len(n.Addresses) == 0 || slices.ContainsFunc(n.Addresses, func(a string) bool { return sameAddress(a, address) }))
	})
}

// wantsFloating reports whether the FloatingIP leaves its address open, or names
// this one.
func wantsFloating(f *v1alpha1.FloatingIP, address string) bool {
	return f.Spec.Address == "" || sameAddress(f.Spec.Address, address)
}

func sameAddress(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return errX == nil && errY == nil && x == y
}

func isIPv6(s string) bool { return strings.Contains(s, ":") }

// service writes the addresses into the status, drops those that the spec does
// not want any more, and reports whether that changed anything.
func (a addresses) service(s *v1alpha1.Service) bool {
	var out []v1alpha1.ServiceAddress
	put := func(network, address string) {
		if wants(s, network, address) && !slices.ContainsFunc(out, func(h v1alpha1.ServiceAddress) bool {
			return h.Network == network && isIPv6(h.Address) == isIPv6(address)
		}) {
			out = append(out, v1alpha1.ServiceAddress{Network: network, Address: address})
		}
	}
	for _, g := range a.given { // what is given is newer than what was there
		if g.network.Project == s.Namespace {
			put(g.network.Name, g.address.String())
		}
	}
	for _, h := range s.Status.Addresses {
		if !slices.Contains(a.lost, h.Address) {
			put(h.Network, h.Address)
		}
	}
	place := func(h v1alpha1.ServiceAddress) int {
		return slices.IndexFunc(s.Spec.Networks, func(n v1alpha1.ServiceNetwork) bool { return n.Network == h.Network })
	}
	slices.SortStableFunc(out, func(x, y v1alpha1.ServiceAddress) int {
		return cmp.Or(cmp.Compare(place(x), place(y)), cmp.Compare(len(x.Address), len(y.Address)))
	})
	if slices.Equal(out, s.Status.Addresses) {
		return false
	}
	s.Status.Addresses = out
	return true
}

// outOfDate: the status lists an address that the spec does not want.
func outOfDate(s *v1alpha1.Service) bool {
	return slices.ContainsFunc(s.Status.Addresses, func(a v1alpha1.ServiceAddress) bool { return !wants(s, a.Network, a.Address) })
}

// floating is the same for a FloatingIP.
func (a addresses) floating(f *v1alpha1.FloatingIP) bool {
	was := f.Status.Address
	if slices.Contains(a.lost, was) {
		f.Status.Address = ""
	}
	for _, g := range a.given {
		if g.network == poolOf(f) && wantsFloating(f, g.address.String()) {
			f.Status.Address = g.address.String()
		}
	}
	return f.Status.Address != was
}

// poolOf is the Network that the address is from.
func poolOf(f *v1alpha1.FloatingIP) compile.Key {
	return compile.Key{Project: cmp.Or(f.Spec.Pool.Project, f.Namespace), Name: f.Spec.Pool.Network}
}

// claims are the addresses that shall be written into each Network: those that
// are needed, and those that a status has without the Network knowing it.
func claims(in *compile.Input, needs compile.Needs) map[compile.Key][]compile.AddressNeed {
	out := map[compile.Key][]compile.AddressNeed{}
	known := map[compile.Key]map[string]string{}
	has := func(kind string, k, network compile.Key, address string) {
		n := in.Networks[network]
		a, err := netip.ParseAddr(address)
		if n == nil || err != nil {
			return
		}
		if known[network] == nil {
			known[network] = make(map[string]string, len(n.Status.Taken))
			for _, t := range n.Status.Taken {
				known[network][t.Address] = t.By
			}
		}
		if known[network][address] != owner(kind, k) {
			out[network] = append(out[network], compile.AddressNeed{Kind: kind, Key: k, Network: network, Address: a})
		}
	}
	for k, s := range in.Services {
		for _, a := range s.Status.Addresses {
			if wants(s, a.Network, a.Address) {
				has(kindService, k, compile.Key{Project: k.Project, Name: a.Network}, a.Address)
			}
		}
	}
	for k, f := range in.FloatingIPs {
		if a := f.Status.Address; a != "" && wantsFloating(f, a) {
			has(kindFloatingIP, k, poolOf(f), a)
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b compile.AddressNeed) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), compareKeys(a.Key, b.Key), a.Address.Compare(b.Address))
		})
	}
	for _, n := range needs.Addresses {
		out[n.Network] = append(out[n.Network], n)
	}
	return out
}

func owner(kind string, k compile.Key) string { return kind + " " + k.String() }

// granted collects what was decided about addresses, by object.
type granted map[subject]*addresses

func (g granted) of(kind string, k compile.Key) *addresses {
	s := subject{resourceOf[kind], k}
	if g[s] == nil {
		g[s] = &addresses{}
	}
	return g[s]
}

// claim writes what is wanted into status.taken of the Network, unless somebody
// else has it. The Network is the truth: whoever writes it first has the
// address, and only then may it stand in the status of its owner.
func (a *allocator) claim(ctx context.Context, in *compile.Input, n *v1alpha1.Network, wanted []compile.AddressNeed) (changed bool, out granted, err error) {
	out = granted{}
	at := make(map[string]int, len(n.Status.Taken))
	for i, t := range n.Status.Taken {
		at[t.Address] = i
	}
	for _, w := range wanted {
		me, address := owner(w.Kind, w.Key), w.Address.String()
		if i, taken := at[address]; taken && n.Status.Taken[i].By != me {
			held, err := a.networks.holds(ctx, n.Status.Taken[i].By, w.Network, address)
			if err != nil {
				return false, nil, err
			}
			if held {
				out.of(w.Kind, w.Key).lost = append(out.of(w.Kind, w.Key).lost, address)
				continue
			}
			n.Status.Taken[i].By, changed = me, true
		} else if !taken {
			if inNewBlock(in, n, w.Address) {
				continue // somebody gave the block to a node meanwhile; compile again
			}
			if earlier, ok := claimed(in, n, w); ok {
				out.of(w.Kind, w.Key).given = append(out.of(w.Kind, w.Key).given, given{w.Network, earlier})
				continue
			}
			n.Status.Taken, changed = append(n.Status.Taken, v1alpha1.Taken{Address: address, By: me}), true
			at[address] = len(n.Status.Taken) - 1
		}
		out.of(w.Kind, w.Key).given = append(out.of(w.Kind, w.Key).given, given{w.Network, w.Address})
	}
	if changed {
		slices.SortFunc(n.Status.Taken, func(x, y v1alpha1.Taken) int { return compareAddresses(x.Address, y.Address) })
	}
	return changed, out, nil
}

func compareAddresses(a, b string) int {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX != nil || errY != nil {
		return cmp.Compare(a, b)
	}
	return x.Compare(y)
}

// claimed finds an address that the owner was given in a former life of ours,
// before its status was written.
func claimed(in *compile.Input, n *v1alpha1.Network, w compile.AddressNeed) (netip.Addr, bool) {
	for _, t := range n.Status.Taken {
		a, err := netip.ParseAddr(t.Address)
		if err != nil || t.By != owner(w.Kind, w.Key) || a.Is6() != w.Address.Is6() {
			continue
		}
		switch w.Kind {
		case kindService:
			s := in.Services[w.Key]
			// One that the compiler has seen and does not want is of no use.
			if s != nil && wants(s, n.Name, t.Address) && !slices.Contains(s.Status.Addresses, v1alpha1.ServiceAddress{Network: n.Name, Address: t.Address}) {
				return a, true
			}
		default:
			f := in.FloatingIPs[w.Key]
			if f != nil && f.Status.Address != t.Address && wantsFloating(f, t.Address) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// inNewBlock: a node holds the address since we looked.
func inNewBlock(in *compile.Input, n *v1alpha1.Network, a netip.Addr) bool {
	seen := in.Networks[compile.Key{Project: n.Namespace, Name: n.Name}]
	for _, b := range n.Status.Blocks {
		p, err := netip.ParsePrefix(b.CIDR)
		if err == nil && p.Contains(a) && (seen == nil || !slices.Contains(seen.Status.Blocks, b)) {
			return true
		}
	}
	return false
}

// unwritten: an address of the Network is taken by somebody who wants it and
// whose status does not say so yet: a block might be given out over it.
func unwritten(in *compile.Input, n *v1alpha1.Network) bool {
	return slices.ContainsFunc(n.Status.Taken, func(t v1alpha1.Taken) bool {
		kind, k := ownerOf(t.By)
		if kind == kindService {
			s := in.Services[k]
			return s != nil && wants(s, n.Name, t.Address) && !slices.ContainsFunc(s.Status.Addresses, func(a v1alpha1.ServiceAddress) bool {
				return a.Network == n.Name && isIPv6(a.Address) == isIPv6(t.Address)
			})
		}
		f := in.FloatingIPs[k]
		return f != nil && f.Status.Address == "" && wantsFloating(f, t.Address)
	})
}

// ownerOf reads "Kind project/name".
func ownerOf(by string) (kind string, k compile.Key) {
	kind, key, _ := strings.Cut(by, " ")
	k.Project, k.Name, _ = strings.Cut(key, "/")
	return kind, k
}

// has reports whether the owner's status has the address.
func has(in *compile.Input, network compile.Key, t v1alpha1.Taken) bool {
	kind, k := ownerOf(t.By)
	if kind == kindService {
		s := in.Services[k]
		return s != nil && k.Project == network.Project && slices.Contains(s.Status.Addresses, v1alpha1.ServiceAddress{Network: network.Name, Address: t.Address})
	}
	f := in.FloatingIPs[k]
	return f != nil && poolOf(f) == network && f.Status.Address == t.Address
}

// holds asks the API whether the owner, "Kind project/name", still wants an
// address of the Network.
func (a apiNetworks) holds(ctx context.Context, by string, network compile.Key, address string) (bool, error) {
	kind, k := ownerOf(by)
	if resourceOf[kind] == "" {
		return false, nil
	}
	read := func(o runtime.Object) error {
		return a.moire.Get().Namespace(k.Project).Resource(resourceOf[kind]).Name(k.Name).Do(ctx).Into(o)
	}
	var err error
	held := false
	if kind == kindService {
		var s v1alpha1.Service
		err = read(&s)
		held = k.Project == network.Project && wants(&s, network.Name, address)
	} else {
		var f v1alpha1.FloatingIP
		err = read(&f)
		held = poolOf(&f) == network && wantsFloating(&f, address)
	}
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("control: ask whether %s still has %s: %w", by, address, err)
	}
	return held, nil
}
