package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Workload is one thing that is attached to Networks: a process, a container,
// a VM, a bare-metal host. A declared Workload is intent; one that a node
// reported by itself (`moire run`) is world and read-only here.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=wl
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Network",type=string,JSONPath=`.spec.interfaces[*].network`
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=`.status.interfaces[*].addresses`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.status.node`
// +kubebuilder:printcolumn:name="Identity",type=integer,priority=1,JSONPath=`.status.identity`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Workload struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              WorkloadSpec   `json:"spec"`
	Status            WorkloadStatus `json:"status,omitempty"`
}

// WorkloadSpec is what people declare of a Workload.
type WorkloadSpec struct {
	// Account is the service account part of the identity
	// spiffe://<trust domain>/ns/<project>/sa/<account>.
	// +kubebuilder:default=default
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +optional
	Account string `json:"account,omitempty"`
	// Node binds the Workload to one node. Empty: to whichever node it is
	// attached. For a Node with spec.external it must be set.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Node string `json:"node,omitempty"`
	// MTLS is the mode of the Workload in the mesh: off, permissive or strict.
	// Default: that of its project (annotation moire.dev/mtls of the namespace),
	// else that of its Domain.
	// +kubebuilder:validation:Enum=off;permissive;strict
	// +optional
	MTLS string `json:"mtls,omitempty"`
	// Interfaces are the attachments, one per Network.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=network
	Interfaces []Interface `json:"interfaces"`
}

// Interface is one attachment of a Workload to one Network.
type Interface struct {
	// Network of the same project, or "project/network" where that Network
	// consents to attach.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	Network string `json:"network"`
	// Addresses that the Workload must get: at most one IPv4 and one IPv6.
	// Default: one dynamic address for each family that the Network has.
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="self.all(a, isIP(a))",message="each address must be an IP address without a prefix length, such as 10.0.0.5"
	// +kubebuilder:validation:XValidation:rule="size(self) < 2 || !isIP(self[0]) || !isIP(self[1]) || ip(self[0]).family() != ip(self[1]).family()",message="an interface has at most one IPv4 and one IPv6 address"
	// +listType=atomic
	// +optional
	Addresses []string `json:"addresses,omitempty"`
	// MAC address. Default: allocated.
	// +kubebuilder:validation:Pattern=`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`
	// +optional
	MAC string `json:"mac,omitempty"`
	// Limit of this interface.
	// +optional
	Limit *Limit `json:"limit,omitempty"`
}

// Phases of a Workload.
const (
	PhasePending = "Pending" // declared, not attached anywhere
	PhaseRunning = "Running" // attached, reported by its node
	PhaseStale   = "Stale"   // last reported by a node that is away
	PhaseFailed  = "Failed"  // cannot be attached; Message says why
)

// WorkloadStatus is the world's side: what the node reported.
type WorkloadStatus struct {
	Phase   string `json:"phase,omitempty"`
	Message string `json:"message,omitempty"`
	// Node on which it is attached.
	Node string `json:"node,omitempty"`
	// Identity is the 32-bit identity number.
	Identity int64 `json:"identity,omitempty"`
	// SPIFFEID is spiffe://<trust domain>/ns/<project>/sa/<account>.
	SPIFFEID string `json:"spiffeID,omitempty"`
	// +listType=atomic
	Interfaces []InterfaceStatus `json:"interfaces,omitempty"`
}

// InterfaceStatus is one attachment as it is.
type InterfaceStatus struct {
	Network string `json:"network"`
	VNI     int32  `json:"vni,omitempty"`
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
	MAC       string   `json:"mac,omitempty"`
}

// WorkloadList is a list of Workloads.
//
// +kubebuilder:object:root=true
type WorkloadList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Workload `json:"items"`
}
