package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FloatingIP is an address of one Network (the pool) for Workloads of another:
// their addresses may overlap with the pool's. Who is in the pool's Network
// reaches the targets by it. When the pool is external, the whole underlay does,
// and what a 1:1 target sends outside has this address as its source.
// Moving it to other targets counts for new sessions at once; established ones
// finish with the old target.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=floatingips,shortName=fip
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.status.address`
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool.network`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targets[*].workload`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type FloatingIP struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              FloatingIPSpec   `json:"spec"`
	Status            FloatingIPStatus `json:"status,omitempty"`
}

// FloatingIPSpec is what people declare of a FloatingIP.
type FloatingIPSpec struct {
	// Pool is the Network that the address belongs to.
	Pool NetworkRef `json:"pool"`
	// Address, inside spec.floating of the pool. Default: one is allocated.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="address must be an IP address without a prefix length, such as 192.0.2.7"
	// +optional
	Address string `json:"address,omitempty"`
	// Targets share the sessions by weight. None: the address answers nobody.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Targets []FloatingTarget `json:"targets,omitempty"`
	// Ports that are mapped. Default: every protocol and port, 1:1.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.all(p, self.exists_one(q, q.port == p.port && q.protocol == p.protocol))",message="a port is there twice; give each port and protocol once"
	// +listType=atomic
	// +optional
	Ports []ServicePort `json:"ports,omitempty"`
	// Names are DNS names of the address in the pool's Network, beside
	// <name>.<project>.<zone>.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^([A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\.?$`
	// +listType=set
	// +optional
	Names []string `json:"names,omitempty"`
}

// NetworkRef names a Network.
type NetworkRef struct {
	// Project of the Network. Default: the object's own. A Network of another
	// project must list the object's project in spec.consents.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Project string `json:"project,omitempty"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Network string `json:"network"`
}

// FloatingTarget is one interface of a Workload of the same project.
type FloatingTarget struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Workload string `json:"workload"`
	// Network of the interface. Default: the only one that it has.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Network string `json:"network,omitempty"`
	// Weight: its share of new sessions, relative to the others; 0: none.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:default=1
	// +optional
	Weight int32 `json:"weight"` // 0 is a weight, so it is always written
}

// FloatingIPStatus is what the control plane decided and found out.
type FloatingIPStatus struct {
	Address string `json:"address,omitempty"`
	// Node that answers for the address on the underlay, when the pool is external.
	Node string `json:"node,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// FloatingIPList is a list of FloatingIPs.
//
// +kubebuilder:object:root=true
type FloatingIPList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FloatingIP `json:"items"`
}
