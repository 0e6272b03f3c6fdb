package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Node is one machine of the underlay. An agent declares its own Node when it
// joins; a Node with spec.external is a VXLAN endpoint without an agent (a
// switch, a Linux vxlan device) behind which declared Workloads sit.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Wanted",type=string,JSONPath=`.status.wanted`
// +kubebuilder:printcolumn:name="Applied",type=string,JSONPath=`.status.applied`
// +kubebuilder:printcolumn:name="Workloads",type=integer,JSONPath=`.status.workloads`
// +kubebuilder:printcolumn:name="Error",type=string,priority=1,JSONPath=`.status.lastError`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              NodeSpec   `json:"spec"`
	Status            NodeStatus `json:"status,omitempty"`
}

// NodeSpec is what is declared of a Node.
type NodeSpec struct {
	// Address is the underlay address, the outer address of VXLAN.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="address must be an IP address without a prefix length, such as 192.0.2.7"
	Address string `json:"address"`
	// External: a VXLAN endpoint that runs no agent.
	// +optional
	External bool `json:"external,omitempty"`
	// Zone of the node, for the locality of Services.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Zone string `json:"zone,omitempty"`
	// Firewall of the node itself. Default: off.
	// +optional
	Firewall *Firewall `json:"firewall,omitempty"`
}

// Modes of a Firewall.
const (
	FirewallOff     = "off"
	FirewallAudit   = "audit"   // counts what it would drop
	FirewallEnforce = "enforce" // drops what no rule allows
)

// Firewall says what may reach the node's own addresses. Replies, loopback,
// ICMP errors and neighbour discovery, and what Moiré itself needs (VXLAN from
// Nodes, control plane) always pass. It cannot be enforced without a rule that allows
// SSH from somewhere unless the Node has the annotation
// moire.dev/accept-risk: lock-out.
type Firewall struct {
	// +kubebuilder:validation:Enum=off;audit;enforce
	// +kubebuilder:default=off
	// +optional
	Mode string `json:"mode,omitempty"`
	// Allow lists what may come in.
	// +kubebuilder:validation:MaxItems=128
	// +listType=atomic
	// +optional
	Allow []FirewallRule `json:"allow,omitempty"`
}

// FirewallRule allows ports from sources.
type FirewallRule struct {
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	Name string `json:"name,omitempty"`
	// From: any of these CIDRs. Default: everywhere.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=50
	// +kubebuilder:validation:XValidation:rule="self.all(c, isCIDR(c))",message="each source must be a CIDR, such as 192.0.2.0/24"
	// +listType=atomic
	// +optional
	From []string `json:"from,omitempty"`
	// Ports: any of these. Default: every protocol and port.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Ports []Port `json:"ports,omitempty"`
}

// AcceptRisk is the annotation of a Node that consents, separated by commas,
// to risks.
const AcceptRisk = "moire.dev/accept-risk"

// Risks that AcceptRisk may name.
const (
	RiskMassDelete = "mass-delete" // a snapshot that removes more than 30 % of what the node has
	RiskLockOut    = "lock-out"    // a Firewall without a rule for SSH
)

// States of a Node.
const (
	NodeReady    = "Ready"    // connected, applied what is wanted
	NodeUpdating = "Updating" // connected, applying
	NodeFailing  = "Failing"  // connected, lastError says what it could not apply, or proxies what is wrong with them
	NodeHeld     = "Held"     // connected, held says why the newest snapshot waits
	NodeStale    = "Stale"    // away; goes on with what it has
	NodeExternal = "External"
)

// NodeStatus is the world's side: kept in memory, rebuilt from the nodes.
type NodeStatus struct {
	State string `json:"state,omitempty"`
	// Wanted, Acked and Applied are snapshot versions.
	Wanted    string `json:"wanted,omitempty"`
	Acked     string `json:"acked,omitempty"`
	Applied   string `json:"applied,omitempty"`
	LastError string `json:"lastError,omitempty"`
	// LastSeen is when the node last spoke.
	LastSeen  *metav1.Time `json:"lastSeen,omitempty"`
	Agent     string       `json:"agent,omitempty"`
	Kernel    string       `json:"kernel,omitempty"`
	Workloads int32        `json:"workloads,omitempty"`
	// RecordsLost counts flow records that this node had to drop.
	RecordsLost int64 `json:"recordsLost,omitempty"`
	// Held says why the newest snapshot waits for consent.
	Held string `json:"held,omitempty"`
	// Repairs counts what the agent found in the kernel that was not as it
	// should be and repaired, since it started; LastRepair is the newest.
	Repairs    int64  `json:"repairs,omitempty"`
	LastRepair string `json:"lastRepair,omitempty"`
	// Proxies says what is wrong with the node's proxies: what needs one is
	// refused there, or served as it was before. Empty: nothing is wrong.
	Proxies string `json:"proxies,omitempty"`
}

// NodeList is a list of Nodes.
//
// +kubebuilder:object:root=true
type NodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Node `json:"items"`
}
