package v1alpha1

// MTLSAnnotation on a namespace says the mode of the Workloads of that project
// that say none themselves: MTLSOff, MTLSPermissive or MTLSStrict.
const MTLSAnnotation = "moire.dev/mtls"

// Modes of Workloads in the mesh.
const (
	MTLSOff        = "off"        // not in the mesh: plain bytes in and out
	MTLSPermissive = "permissive" // TLS among those in the mesh; others may send plain bytes
	MTLSStrict     = "strict"     // plain bytes are refused
)

// Values of Authorizer.OnFailure.
const (
	OnFailureDeny  = "deny"
	OnFailureAllow = "allow"
)

// Authorizer is a service that rules of Policies may ask about requests, in
// Envoy's external authorization protocol over gRPC.
type Authorizer struct {
	// Name by which rules of the Domain name it in external.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`
	// Project of the Service, of this Domain.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Project string `json:"project"`
	// Service that is asked, with an address in the Network of the Workload that a
	// rule protects, or in one that it is linked to.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Service string `json:"service"`
	// Port of the Service.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// TimeoutMilliseconds until there is no answer.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=60000
	// +kubebuilder:default=200
	// +optional
	TimeoutMilliseconds int32 `json:"timeoutMilliseconds,omitempty"`
	// OnFailure: deny, or allow to take no answer for agreement.
	// +kubebuilder:validation:Enum=deny;allow
	// +kubebuilder:default=deny
	// +optional
	OnFailure string `json:"onFailure,omitempty"`
	// Status that a caller gets when there is no answer.
	// +kubebuilder:validation:Minimum=400
	// +kubebuilder:validation:Maximum=599
	// +kubebuilder:default=403
	// +optional
	Status int32 `json:"status,omitempty"`
}
