package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Link is reachability between two Networks, of one project, of two projects
// or of two Domains. It makes routes and permits nothing: Policies do. Both
// sides must agree: a Network of another project than the Link's own must list
// that project in spec.consents. With Via, everything that crosses the Link
// goes through a chain of network functions.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="From",type=string,JSONPath=`.spec.ends[0].network`
// +kubebuilder:printcolumn:name="To",type=string,JSONPath=`.spec.ends[1].network`
// +kubebuilder:printcolumn:name="Via",type=string,JSONPath=`.spec.via[*].name`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Link struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              LinkSpec   `json:"spec"`
	Status            LinkStatus `json:"status,omitempty"`
}

// What happens to a Link whose chain has a function without a healthy instance.
const (
	OnFailureClosed = "closed" // nothing crosses
	OnFailureBypass = "bypass" // the whole chain is left out: its functions have Networks of their own
)

// LinkSpec is what people declare of a Link.
//
// +kubebuilder:validation:XValidation:rule="!has(self.via) || self.via.size() == 0 || self.ends.all(e, !has(e.translate) || e.translate.size() == 0)",message="via and translate exclude each other; give the Networks prefixes that do not overlap, or remove via"
type LinkSpec struct {
	// Ends are the two Networks. Their prefixes must not overlap, nor those of
	// any other Network that one of them is linked to, as each end sees them.
	// +kubebuilder:validation:MinItems=2
	// +kubebuilder:validation:MaxItems=2
	// +listType=atomic
	Ends []LinkEnd `json:"ends"`
	// Via is the chain, in the order from the first end to the second; back,
	// the same instances in reverse.
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=name
	// +optional
	Via []Function `json:"via,omitempty"`
	// OnFailure says what happens when a function has no healthy instance.
	// +kubebuilder:validation:Enum=closed;bypass
	// +kubebuilder:default=closed
	// +optional
	OnFailure string `json:"onFailure,omitempty"`
}

// LinkEnd is one Network of a Link.
type LinkEnd struct {
	// Project of the Network. Default: the Link's own.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Project string `json:"project,omitempty"`
	// Network that is linked.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Network string `json:"network"`
	// Translate says under which prefixes the other end sees this one: needed
	// where prefixes overlap. Addresses keep their host part.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Translate []Translation `json:"translate,omitempty"`
}

// Translation maps one prefix to another of the same length.
//
// +kubebuilder:validation:XValidation:rule="!isCIDR(self.prefix) || !isCIDR(self.__as__) || cidr(self.prefix).prefixLength() == cidr(self.__as__).prefixLength() && self.prefix.contains(':') == self.__as__.contains(':')",message="prefix and as must be of the same family and length, such as 10.0.0.0/24 and 100.64.1.0/24"
type Translation struct {
	// Prefix of this end.
	// +kubebuilder:validation:MaxLength=50
	// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self) == cidr(self).masked()",message="prefix must be a CIDR without host bits, such as 10.0.0.0/24"
	Prefix string `json:"prefix"`
	// As is the prefix of the same length and family that the other end sees.
	// +kubebuilder:validation:MaxLength=50
	// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self) == cidr(self).masked()",message="as must be a CIDR without host bits, such as 100.64.1.0/24"
	As string `json:"as"`
}

// Modes of a Function.
const (
	FunctionRouted      = "routed"      // an IP hop that keeps addresses
	FunctionTransparent = "transparent" // a bridge: frames pass through it unchanged
	FunctionNAT         = "nat"         // an IP hop that puts its own address, of its far side, for the source
)

// Function is one network function of a chain: Workloads of the Link's own
// project with one interface in Left and one in Right. Several of them share
// the flows; a flow stays with its instance, in both directions.
type Function struct {
	// Name is unique in the chain.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`
	// Workloads selects the instances by label; at least one label or expression.
	// +kubebuilder:validation:XValidation:rule="has(self.matchLabels) && self.matchLabels.size() > 0 || has(self.matchExpressions) && self.matchExpressions.size() > 0",message="an empty selector would make every Workload a function; write matchLabels or matchExpressions"
	Workloads metav1.LabelSelector `json:"workloads"`
	// Mode: routed, transparent or nat.
	// +kubebuilder:validation:Enum=routed;transparent;nat
	// +kubebuilder:default=routed
	// +optional
	Mode string `json:"mode,omitempty"`
	// Left is the Network, "network" or "project/network", of the interface
	// towards the first end. Default: the first end for the first function, the
	// Right of the function before for the others.
	// +kubebuilder:validation:MaxLength=317
	// +optional
	Left string `json:"left,omitempty"`
	// Right is the Network of the interface towards the second end. Default:
	// the second end for the last function; the others must say it.
	// +kubebuilder:validation:MaxLength=317
	// +optional
	Right string `json:"right,omitempty"`
	// Health check of each instance. Default: healthy while attached.
	// +optional
	Health *HealthCheck `json:"health,omitempty"`
}

// HealthCheck says how the node of a Workload finds out whether it is well.
//
// +kubebuilder:validation:XValidation:rule="self.type == 'icmp' || has(self.port)",message="tcp and http checks need port"
type HealthCheck struct {
	// Type: icmp, tcp (a connection is accepted) or http (a GET is answered
	// with 200 to 399).
	// +kubebuilder:validation:Enum=icmp;tcp;http
	// +kubebuilder:default=tcp
	// +optional
	Type string `json:"type,omitempty"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port,omitempty"`
	// Path of an http check.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:default="/"
	// +optional
	Path string `json:"path,omitempty"`
	// IntervalSeconds between checks.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	// +kubebuilder:default=2
	// +optional
	IntervalSeconds int32 `json:"intervalSeconds,omitempty"`
	// TimeoutSeconds of one check.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=60
	// +kubebuilder:default=1
	// +optional
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
	// Failures in a row that make it unhealthy.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=2
	// +optional
	Failures int32 `json:"failures,omitempty"`
	// Successes in a row that make it healthy again.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=1
	// +optional
	Successes int32 `json:"successes,omitempty"`
}

// LinkStatus is what the control plane found out.
type LinkStatus struct {
	// Conditions: Ready is False when an end does not exist or does not
	// consent, when prefixes overlap, or when the chain is down.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// LinkList is a list of Links.
//
// +kubebuilder:object:root=true
type LinkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Link `json:"items"`
}
