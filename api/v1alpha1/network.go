package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Network is a virtual network of a project: prefixes, a routing table of its
// own and a 24-bit VNI. Prefixes of different Networks may overlap.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=net
// +kubebuilder:printcolumn:name="VNI",type=integer,JSONPath=`.status.vni`
// +kubebuilder:printcolumn:name="Prefixes",type=string,JSONPath=`.spec.prefixes`
// +kubebuilder:printcolumn:name="Default",type=string,JSONPath=`.spec.default`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Network struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              NetworkSpec   `json:"spec"`
	Status            NetworkStatus `json:"status,omitempty"`
}

// DefaultOpen and DefaultDeny are the values of NetworkSpec.Default.
const (
	DefaultOpen = "open"
	DefaultDeny = "deny"
)

// NetworkSpec is what people declare of a Network.
//
// +kubebuilder:validation:XValidation:rule="self.?external.orValue(false) == oldSelf.?external.orValue(false)",message="external cannot be changed; make another Network"
type NetworkSpec struct {
	// Prefixes are the IPv4 and IPv6 prefixes of the Network, without host
	// bits. They must not overlap each other. Prefixes may be added later;
	// one that is in use cannot be removed.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=50
	// +kubebuilder:validation:XValidation:rule="self.all(p, isCIDR(p) && cidr(p) == cidr(p).masked())",message="each prefix must be a CIDR without host bits, such as 10.0.0.0/24 or fd00::/64"
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, isCIDR(a) && isCIDR(b) && (cidr(a).containsCIDR(b) || cidr(b).containsCIDR(a))))",message="prefixes of one Network must not overlap each other; remove or shrink one of them"
	// +listType=atomic
	Prefixes []string `json:"prefixes"`
	// Allocation limits dynamic addresses to these ranges: a CIDR, an address
	// or "first-last". Default: everything in Prefixes.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="self.all(r, isCIDR(r) || isIP(r) || (size(r.split('-')) == 2 && r.split('-').all(a, isIP(a))))",message="each range must be a CIDR, an address or first-last, such as 10.0.0.10-10.0.0.20"
	// +listType=atomic
	// +optional
	Allocation []string `json:"allocation,omitempty"`
	// Reserved addresses belong to somebody outside Moiré (a router, a host)
	// and are never handed out: a CIDR, an address or "first-last".
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="self.all(r, isCIDR(r) || isIP(r) || (size(r.split('-')) == 2 && r.split('-').all(a, isIP(a))))",message="each range must be a CIDR, an address or first-last, such as 10.0.0.10-10.0.0.20"
	// +listType=atomic
	// +optional
	Reserved []string `json:"reserved,omitempty"`
	// Static addresses are given only to Workloads that name them: a CIDR, an
	// address or "first-last".
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="self.all(r, isCIDR(r) || isIP(r) || (size(r.split('-')) == 2 && r.split('-').all(a, isIP(a))))",message="each range must be a CIDR, an address or first-last, such as 10.0.0.10-10.0.0.20"
	// +listType=atomic
	// +optional
	Static []string `json:"static,omitempty"`
	// Default says what happens inside the Network where no Policy selects a
	// Workload: open (everything passes) or deny.
	// +kubebuilder:validation:Enum=open;deny
	// +kubebuilder:default=open
	// +optional
	Default string `json:"default,omitempty"`
	// MTU of the interfaces in bytes. Default: underlay MTU - 50 (IPv4
	// underlay) or - 70 (IPv6 underlay). A larger value is lowered to that.
	// +kubebuilder:validation:Minimum=1280
	// +kubebuilder:validation:Maximum=9000
	// +optional
	MTU int32 `json:"mtu,omitempty"`
	// External: the prefixes are addresses of the underlay, a pool for
	// FloatingIPs. Nothing can be attached to it. Only who may "manage" the
	// Domain may write it. Cannot be changed.
	// +optional
	External bool `json:"external,omitempty"`
	// Consents let other projects refer to this Network.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Consents []Consent `json:"consents,omitempty"`
	// Outside says how Workloads reach what is outside of all Networks.
	// Default: not at all.
	// +optional
	Outside *Outside `json:"outside,omitempty"`
	// DNS says what the name service does. It is at 169.254.169.253 and
	// fd00:4d4f:4952:45::53 in every Network.
	// +kubebuilder:default={}
	// +optional
	DNS *DNS `json:"dns,omitempty"`
	// Metadata is an endpoint, http://host:port, that the node asks for what
	// Workloads request at http://169.254.169.254. The headers
	// X-Moire-Project, X-Moire-Workload, X-Moire-Network and X-Forwarded-For
	// tell who asks. Default: nothing answers there.
	// +kubebuilder:validation:MaxLength=300
	// +kubebuilder:validation:Pattern=`^https?://[^/]+(/.*)?$`
	// +optional
	Metadata string `json:"metadata,omitempty"`
	// Limit of all Workloads of the Network together, on each node.
	// +optional
	Limit *Limit `json:"limit,omitempty"`
	// Services are the ranges from which addresses of Services are allocated.
	// Default: what no node holds, from the end of the first prefix.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="self.all(r, isCIDR(r) || isIP(r) || (size(r.split('-')) == 2 && r.split('-').all(a, isIP(a))))",message="each range must be a CIDR, an address or first-last, such as 10.0.0.10-10.0.0.20"
	// +listType=atomic
	// +optional
	Services []string `json:"services,omitempty"`
	// Floating are the ranges from which FloatingIPs come. Default: everything
	// when External, else nothing.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="self.all(r, isCIDR(r) || isIP(r) || (size(r.split('-')) == 2 && r.split('-').all(a, isIP(a))))",message="each range must be a CIDR, an address or first-last, such as 10.0.0.10-10.0.0.20"
	// +listType=atomic
	// +optional
	Floating []string `json:"floating,omitempty"`
}

// NetworkStatus is what the control plane found out or decided.
type NetworkStatus struct {
	// VNI is the network id, 1 to 16777215. It is unique and never reused
	// while anything may remember it.
	VNI int32 `json:"vni,omitempty"`
	// Blocks are the address blocks that nodes hold. This list is the truth
	// from which addresses come: one writer wins by resourceVersion.
	// +listType=atomic
	Blocks []Block `json:"blocks,omitempty"`
	// Taken are the addresses that Services and FloatingIPs have. As Blocks, it
	// is the truth: what stands here is given to nobody else.
	// +listType=atomic
	Taken []Taken `json:"taken,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Block is a range of addresses that one node gives out on its own.
type Block struct {
	// CIDR of the block.
	CIDR string `json:"cidr"`
	// Node that holds it.
	Node string `json:"node"`
}

// Taken is one address that a Service or FloatingIP has.
type Taken struct {
	Address string `json:"address"`
	// By is "Service project/name" or "FloatingIP project/name".
	By string `json:"by"`
}

// NetworkList is a list of Networks.
//
// +kubebuilder:object:root=true
type NetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Network `json:"items"`
}
