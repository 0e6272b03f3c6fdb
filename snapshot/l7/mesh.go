package l7

import (
	"net/netip"

	"moire.dev/moire/snapshot/policy"
)

// Mesh hangs a proxy on tenant networks. Its sockets are inside the network
// namespaces of Workloads; whoever owns the kernel side made them and handed
// them over (proxy/door). Addresses are of Networks, so each stands beside a
// network id.
type Mesh struct {
	// Node that the proxy serves, for records.
	Node string `json:"node"`
	// Workloads whose sockets the proxy has, one for each interface.
	Workloads []Workload `json:"workloads,omitempty"`
	// Peers of these: who is at an address of a Network. What is not here is
	// unknown: never in the mesh, identity 0.
	Peers []Peer `json:"peers,omitempty"`
	// Trusts by name.
	Trusts []Trust `json:"trusts,omitempty"`
	// KeySets of JWT issuers, by URI.
	KeySets []KeySet `json:"keySets,omitempty"`
	// Mark, when not 0, is put on the connections to applications, which then come
	// from the caller's own address; the kernel side brings what is sent to that
	// address with the mark back to the proxy. 0: they come from the Workload's own.
	Mark uint32 `json:"mark,omitempty"`
}

// Workload is one interface that the proxy speaks for, in both directions.
type Workload struct {
	// Name, project/workload.
	Name    string `json:"name"`
	Project string `json:"project"`
	Domain  string `json:"domain"`
	Network string `json:"network"`
	VNI     uint32 `json:"vni"`
	// Namespace is the key under which its sockets were handed over.
	Namespace string       `json:"namespace"`
	Addresses []netip.Addr `json:"addresses"`
	// Number and SPIFFE are its identity, Labels what its records show.
	Number policy.Identity   `json:"number"`
	SPIFFE string            `json:"spiffe"`
	Labels map[string]string `json:"labels,omitempty"`
	// Mode: "off", "permissive" or "strict".
	Mode string `json:"mode"`
	// Certificate by name in Config.Certificates: its SVID. Empty: it has none yet,
	// and what needs one is refused.
	Certificate string `json:"certificate,omitempty"`
	// View names the Listeners, by Listener.View, that its outbound connections
	// are for.
	View string `json:"view"`
	// Gateway, when set, makes it one: there is no application, and what comes to its
	// Addresses is for the Listeners with this View.
	Gateway string `json:"gateway,omitempty"`
	// Ports of Services that it is behind, with the protocol that it speaks there.
	// Elsewhere: TCP, or AutoHTTP where a rule of Ingress has to see requests.
	Ports []WorkloadPort `json:"ports,omitempty"`
	// TellCaller: the application gets x-forwarded-client-cert with the SPIFFE ID of
	// who calls. What a caller writes there itself is removed, always.
	TellCaller bool `json:"tellCaller,omitempty"`
	// TellRule: answers carry x-moire-rule, the rule that let the request in or not.
	TellRule bool `json:"tellRule,omitempty"`
	// Egress and Ingress decide: the same Sets that the kernel has.
	Egress  policy.Set `json:"egress"`
	Ingress policy.Set `json:"ingress"`
}

// WorkloadPort is a port and what is spoken on it.
type WorkloadPort struct {
	Port     uint16   `json:"port"`
	Protocol Protocol `json:"protocol"`
}

// Peer is who is at an address of a Network.
type Peer struct {
	VNI     uint32            `json:"vni"`
	Address netip.Addr        `json:"address"`
	Name    string            `json:"name"` // project/workload
	Domain  string            `json:"domain,omitempty"`
	Network string            `json:"network,omitempty"`
	Number  policy.Identity   `json:"number,omitempty"`
	SPIFFE  string            `json:"spiffe,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Node    string            `json:"node,omitempty"`
	// Mesh: its proxy speaks TLS to ours, and expects it.
	Mesh bool `json:"mesh,omitempty"`
	// Home, when valid, is where it really is: the address of a Workload of ours
	// on the other side of a Link.
	Home    netip.Addr `json:"home,omitzero"`
	HomeVNI uint32     `json:"homeVNI,omitempty"`
}

// Trust is a trust domain with its roots, PEM, and the names of the Trusts that
// it federates with. A Workload believes the roots of its own trust domain for
// that alone, and those of a federated one for that one alone. Its Name is its
// trust domain, or for a foreign one something longer: two Domains may have been
// given different roots for one foreign trust domain.
type Trust struct {
	Name        string   `json:"name"`
	TrustDomain string   `json:"trustDomain"`
	Roots       string   `json:"roots"`
	Federates   []string `json:"federates,omitempty"`
}

// KeySet is a JWK set (RFC 7517) as it was when it was last fetched.
type KeySet struct {
	URI  string `json:"uri"`
	JSON string `json:"json,omitempty"`
	// Until, seconds since 1970: after that it is too old to be believed; 0: for ever.
	Until int64 `json:"until,omitempty"`
}
