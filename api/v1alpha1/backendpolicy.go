package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BackendPolicy says how the requests and connections to a Service, or of a
// route, are treated. What is about endpoints and connections (balancer,
// outlier, check, limits, connections, tls, locality) is for Services, wherever
// they are a backend. What is about requests (retry, hedge, timeouts, rateLimits,
// hash, subset) holds for requests to the Service and for those that the route
// takes; a route goes before its Service, and what the route says itself before
// both.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=backendpolicies
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.spec.targetRefs[*].name`
// +kubebuilder:printcolumn:name="Balancer",type=string,JSONPath=`.spec.balancer.kind`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BackendPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              BackendPolicySpec `json:"spec"`
	Status            TargetStatus      `json:"status,omitempty"`
}

// Kinds of a PolicyTarget.
const (
	TargetService   = "Service"
	TargetHTTPRoute = "HTTPRoute"
	TargetGRPCRoute = "GRPCRoute"
)

// PolicyTarget is what a BackendPolicy or FaultPolicy is attached to. Of two
// that are attached to one thing the older one holds, and the one that names a
// port or a rule goes before the one that means all of the object.
//
// +kubebuilder:validation:XValidation:rule="!has(self.port) || self.kind == 'Service'",message="port is for a Service; name the rule of a route in sectionName"
// +kubebuilder:validation:XValidation:rule="!has(self.port) || !has(self.sectionName)",message="write port or sectionName, not both"
type PolicyTarget struct {
	// Kind: Service (of moire.dev), HTTPRoute or GRPCRoute.
	// +kubebuilder:validation:Enum=Service;HTTPRoute;GRPCRoute
	Kind string `json:"kind"`
	// Name of an object of the same project.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// SectionName is the name of a port of the Service or of a rule of the route.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	SectionName string `json:"sectionName,omitempty"`
	// Port of the Service, when it has no name.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port,omitempty"`
}

// BackendPolicySpec is what people declare of a BackendPolicy.
//
// +kubebuilder:validation:XValidation:rule="self.targetRefs.all(t, t.kind == 'Service') || !(has(self.balancer) || has(self.outlier) || has(self.check) || has(self.limits) || has(self.connections) || has(self.tls) || has(self.locality))",message="balancer, outlier, check, limits, connections, tls and locality are for Services only"
// +kubebuilder:validation:XValidation:rule="has(self.balancer) || has(self.outlier) || has(self.check) || has(self.limits) || has(self.connections) || has(self.tls) || has(self.locality) || has(self.retry) || has(self.hedge) || has(self.timeouts) || has(self.rateLimits) || has(self.hash) || has(self.subset)",message="the policy says nothing"
type BackendPolicySpec struct {
	// TargetRefs are what it is attached to.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(o, o == t))",message="a target is there twice"
	// +listType=atomic
	TargetRefs []PolicyTarget `json:"targetRefs"`

	// Balancer chooses among endpoints.
	// +optional
	Balancer *Balancer `json:"balancer,omitempty"`
	// Outlier leaves endpoints out for a while that fail or are slow.
	// +optional
	Outlier *Outlier `json:"outlier,omitempty"`
	// Check asks endpoints whether they are well, from the node of each.
	// +optional
	Check *ActiveCheck `json:"check,omitempty"`
	// Limits of what one proxy does at a time.
	// +optional
	Limits *BackendLimits `json:"limits,omitempty"`
	// Connections to endpoints.
	// +optional
	Connections *BackendConnections `json:"connections,omitempty"`
	// TLS to endpoints that are not in the mesh; those in it speak mutual TLS
	// anyway.
	// +optional
	TLS *BackendTLS `json:"tls,omitempty"`
	// Locality prefers endpoints of the caller's zone while enough are well.
	// +optional
	Locality *BackendLocality `json:"locality,omitempty"`

	// Retry what is safe to send again.
	// +optional
	Retry *Retry `json:"retry,omitempty"`
	// Hedge sends an idempotent request a second time, elsewhere, when there is no
	// answer yet.
	// +optional
	Hedge *Hedge `json:"hedge,omitempty"`
	// Timeouts of requests.
	// +optional
	Timeouts *RequestTimeouts `json:"timeouts,omitempty"`
	// RateLimits of requests; all have to agree.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	RateLimits []RateLimit `json:"rateLimits,omitempty"`
	// Hash says what of a request RingHash and Maglev look at. Default: the
	// address of the caller.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	Hash []HashOn `json:"hash,omitempty"`
	// Subset: only endpoints of Workloads with these labels.
	// +kubebuilder:validation:MaxProperties=16
	// +optional
	Subset map[string]string `json:"subset,omitempty"`
}

// Duration is a time such as 250ms, 10s or 1h30m (GEP-2257).
//
// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
type Duration string

// TargetStatus is what the control plane found out about a BackendPolicy or
// FaultPolicy.
type TargetStatus struct {
	// Conditions: Accepted is False with reason Conflicted when an older one is
	// attached to the same target, TargetNotFound, or Invalid.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BackendPolicyList is a list of BackendPolicies.
//
// +kubebuilder:object:root=true
type BackendPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BackendPolicy `json:"items"`
}
