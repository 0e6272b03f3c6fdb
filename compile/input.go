package compile

import (
	"net/netip"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// Key names a namespaced object.
type Key struct{ Project, Name string }

// String is project/name.
func (k Key) String() string { return k.Project + "/" + k.Name }

// Input is every fact that the result depends on. Objects are shared and must
// not be changed by anybody.
type Input struct {
	Domains map[string]*v1alpha1.Domain
	// Projects: namespace -> Domain. A project without a Domain has no entry,
	// and nothing in it is connected.
	Projects map[string]string
	// Modes: namespace -> v1alpha1.MTLSAnnotation, where it is written.
	Modes       map[string]string
	Networks    map[Key]*v1alpha1.Network  // status: VNI and blocks
	Workloads   map[Key]*v1alpha1.Workload // declared ones
	Policies    map[Key]*v1alpha1.Policy
	Nodes       map[string]*v1alpha1.Node
	Links       map[Key]*v1alpha1.Link
	Services    map[Key]*v1alpha1.Service    // status: addresses
	FloatingIPs map[Key]*v1alpha1.FloatingIP // status: address
	HTTPRoutes  map[Key]*gateway.HTTPRoute
	GRPCRoutes  map[Key]*gateway.GRPCRoute
	TLSRoutes   map[Key]*gateway.TLSRoute
	TCPRoutes   map[Key]*gateway.TCPRoute
	// Gateways of all classes; Classes by name, nil: only the class moire is known.
	Gateways map[Key]*gateway.Gateway
	Classes  map[string]*gateway.GatewayClass
	// Secrets with certificates that Gateways may name; nil: nobody knows them here,
	// and what is named counts as there.
	Secrets map[Key]*Secret
	// Labels of projects, for Gateways that choose by them.
	Labels map[string]map[string]string
	// Grants say which routes of other projects may refer to Services of theirs.
	Grants          map[Key]*gateway.ReferenceGrant
	BackendPolicies map[Key]*v1alpha1.BackendPolicy
	FaultPolicies   map[Key]*v1alpha1.FaultPolicy
	// NodeNumbers are allocated, 1 to 65535.
	NodeNumbers map[string]uint16
	// Reports: the last word of each node, also of those that are away.
	Reports map[string]*snapshot.Report
	// Away: nodes that have not been heard of for some seconds. What needs a
	// living node (backends, gateways, function instances) leaves them.
	Away map[string]bool
	// Resolved: the addresses of the external names of Services, as last asked;
	// sorted. A name without an entry has not been asked yet.
	Resolved map[string][]netip.Addr
	// KeySets: JWK sets of Needs.KeySets as last fetched, by URI.
	KeySets map[string]l7.KeySet
	// Bundles: what others must have to believe a Domain. One without an entry has
	// no CA yet.
	Bundles map[string]*v1alpha1.Bundle
	// Identities that are allocated, in use or until a moment ago.
	Identities map[IdentityKey]policy.Identity
}

// Secret is a certificate and its key, PEM. What is no such Secret is empty.
type Secret struct{ Chain, Key string }

// IdentityKey is the canonical form of domain, project, account and sorted
// labels; see KeyOf.
type IdentityKey string

// Needs is what has to be allocated before a compile can connect everything.
type Needs struct {
	VNIs        []Key               // Networks without a VNI
	Identities  []snapshot.Identity // Number is 0
	NodeNumbers []string
	Blocks      []BlockNeed
	Addresses   []AddressNeed
	// Names: external names of Services that have to be resolved, sorted.
	Names []string
	// KeySets: URIs of JWK sets that have to be fetched, sorted.
	KeySets []string
}

// AddressNeed: the Service or FloatingIP (Kind) needs this address, which is
// free, in its status.
type AddressNeed struct {
	Kind    string
	Key     Key
	Network Key
	Address netip.Addr
}

// BlockNeed: the node needs one more block of the Network.
type BlockNeed struct {
	Network Key
	Node    string
	IPv6    bool
}
