package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FaultPolicy delays requests or answers them with an error on purpose, so that
// people see what a fault does before it happens by itself.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=faultpolicies
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].name`
// +kubebuilder:printcolumn:name="Delay",type=string,JSONPath=`.spec.delay.duration`
// +kubebuilder:printcolumn:name="Abort",type=string,JSONPath=`.spec.abort.status`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type FaultPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              FaultPolicySpec `json:"spec"`
	Status            TargetStatus    `json:"status,omitempty"`
}

// FaultPolicySpec is what people declare of a FaultPolicy.
//
// +kubebuilder:validation:XValidation:rule="has(self.delay) || has(self.abort)",message="write delay, abort or both"
type FaultPolicySpec struct {
	// TargetRefs are what it is attached to: requests to a Service, of a route, or
	// of one rule of it.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(o, o == t))",message="a target is there twice"
	// +listType=atomic
	TargetRefs []PolicyTarget `json:"targetRefs"`
	// Delay before a request goes on.
	// +optional
	Delay *FaultDelay `json:"delay,omitempty"`
	// Abort answers a request in place of the backend.
	// +optional
	Abort *FaultAbort `json:"abort,omitempty"`
	// Headers that a request must have to be meant. Default: all requests.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	Headers []FaultHeader `json:"headers,omitempty"`
}

// FaultDelay delays a share of the requests.
type FaultDelay struct {
	Duration Duration `json:"duration"`
	Share    `json:",inline"`
}

// FaultAbort answers a share of the requests.
//
// +kubebuilder:validation:XValidation:rule="has(self.status) || has(self.grpcStatus)",message="write status, grpcStatus or both"
type FaultAbort struct {
	// Status of HTTP.
	// +kubebuilder:validation:Minimum=200
	// +kubebuilder:validation:Maximum=599
	// +optional
	Status int32 `json:"status,omitempty"`
	// GRPCStatus that gRPC calls get.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	// +optional
	GRPCStatus int32 `json:"grpcStatus,omitempty"`
	Share      `json:",inline"`
}

// Share of the requests.
//
// +kubebuilder:validation:XValidation:rule="has(self.percent) != has(self.perMille)",message="write percent or perMille"
type Share struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	Percent int32 `json:"percent,omitempty"`
	// PerMille, for less than one percent.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	PerMille int32 `json:"perMille,omitempty"`
}

// FaultHeader is a header that a request must have.
type FaultHeader struct {
	// Type: Exact or RegularExpression (RE2, the whole value).
	// +kubebuilder:validation:Enum=Exact;RegularExpression
	// +kubebuilder:default=Exact
	// +optional
	Type string `json:"type,omitempty"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[!#$%&'*+.^_|~0-9A-Za-z-]+$`
	Name string `json:"name"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value"`
}

// FaultPolicyList is a list of FaultPolicies.
//
// +kubebuilder:object:root=true
type FaultPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FaultPolicy `json:"items"`
}
