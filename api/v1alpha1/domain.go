package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Domain is the outermost tenant: a trust domain with admins of its own.
// Two Domains share nothing unless both sides agree.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:printcolumn:name="Trust-Domain",type=string,JSONPath=`.spec.trustDomain`
// +kubebuilder:printcolumn:name="Root",type=string,JSONPath=`.status.identity.phase`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="a Domain name has at most 63 characters; choose a shorter name"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.federates) || self.spec.federates.all(f, !has(f.domain) || f.domain != self.metadata.name)",message="a Domain does not federate with itself; remove the entry"
type Domain struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// +kubebuilder:default={}
	Spec   DomainSpec   `json:"spec,omitempty"`
	Status DomainStatus `json:"status,omitempty"`
}

// RotateRoot is an annotation of a Domain: whenever its value changes, the root
// of the Domain's CA is replaced, by overlap.
const RotateRoot = "moire.dev/rotate-root"

// RotateOrder is an annotation of a Domain that a rotation obeys: hold does not
// let the next root sign, hurry waits for no node, drop forgets the former root
// at once.
const RotateOrder = "moire.dev/rotate-order"

// Values of RotateOrder.
const (
	RotateHold  = "hold"
	RotateHurry = "hurry"
	RotateDrop  = "drop"
)

// Lives of an X.509-SVID in seconds.
const (
	MinSVIDLife     = 60
	DefaultSVIDLife = 24 * 60 * 60 // also the longest
)

// DomainSpec is what people declare of a Domain.
type DomainSpec struct {
	// TrustDomain is the SPIFFE trust domain of every identity in the Domain.
	// Default: "<name>.moire".
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[a-z0-9._-]*$`
	// +optional
	TrustDomain string `json:"trustDomain,omitempty"`
	// Description is free text for people.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Description string `json:"description,omitempty"`
	// SVIDLifeSeconds is how long the certificate of a Workload is good; it is
	// renewed at half of that. A Workload whose node is cut off from the control
	// plane keeps its certificate for at least the other half.
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=86400
	// +kubebuilder:default=86400
	// +optional
	SVIDLifeSeconds int32 `json:"svidLifeSeconds,omitempty"`
	// Federates are other trust domains whose Workloads are believed to be who
	// they say. What they may do is for Policies to say.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Federates []Federation `json:"federates,omitempty"`
	// MTLS is the mode of the Workloads whose project says none: off, permissive
	// or strict.
	// +kubebuilder:validation:Enum=off;permissive;strict
	// +kubebuilder:default=off
	// +optional
	MTLS string `json:"mtls,omitempty"`
	// Authorizers are services that rules may ask about requests.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=name
	// +optional
	Authorizers []Authorizer `json:"authorizers,omitempty"`
}

// Federation names one other trust domain: a Domain of this installation, which
// must name this one too, or a foreign trust domain with its bundle.
//
// +kubebuilder:validation:XValidation:rule="has(self.domain) != has(self.trustDomain)",message="write either domain, or trustDomain and bundle"
// +kubebuilder:validation:XValidation:rule="has(self.trustDomain) == has(self.bundle)",message="a foreign trustDomain needs its bundle, and a Domain of this installation has none"
type Federation struct {
	// Domain of this installation.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Domain string `json:"domain,omitempty"`
	// TrustDomain that is not of this installation.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[a-z0-9._-]*$`
	// +optional
	TrustDomain string `json:"trustDomain,omitempty"`
	// Bundle of TrustDomain: certificates of CAs as PEM, or a SPIFFE bundle as
	// JSON.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	// +optional
	Bundle string `json:"bundle,omitempty"`
}

// DomainStatus is what the control plane found out.
type DomainStatus struct {
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Identity is how the CA of the Domain is.
	// +optional
	Identity *DomainIdentity `json:"identity,omitempty"`
}

// Phases of a CA.
const (
	PhaseSteady    = "Steady"    // one root
	PhaseAnnounced = "Announced" // the next root is being made known; the present one signs
	PhaseSwitched  = "Switched"  // the next root signs; what the former one signed still lives
)

// DomainIdentity is how the CA of a Domain is.
type DomainIdentity struct {
	// Phase: Steady, Announced or Switched.
	Phase string `json:"phase"`
	// Since when it is.
	Since metav1.Time `json:"since"`
	// Message says what a phase that is not Steady waits for.
	// +optional
	Message string `json:"message,omitempty"`
	// Roots that are trusted now.
	// +listType=atomic
	Roots []DomainRoot `json:"roots,omitempty"`
	// Bundle is what others must have to believe this Domain: a SPIFFE bundle,
	// as JSON.
	// +optional
	Bundle string `json:"bundle,omitempty"`
}

// States of a root.
const (
	RootNext    = "next"    // trusted, does not sign yet
	RootSigns   = "signs"   //
	RootRetired = "retired" // signs no more; goes when nothing that it signed lives
)

// DomainRoot is one root of a Domain.
type DomainRoot struct {
	// Fingerprint is the SHA-256 of the certificate in hex.
	Fingerprint string `json:"fingerprint"`
	// State: next, signs or retired.
	State string `json:"state"`
	// External: it was given to the control plane, which does not have its key
	// in the store.
	// +optional
	External bool `json:"external,omitempty"`
	// NotAfter is when the certificate ends.
	NotAfter metav1.Time `json:"notAfter"`
	// Until is when a retired root goes.
	// +optional
	Until *metav1.Time `json:"until,omitempty"`
}

// DomainList is a list of Domains.
//
// +kubebuilder:object:root=true
type DomainList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Domain `json:"items"`
}
