package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Service is a name with addresses and ports in front of Workloads or of
// endpoints outside.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=svc
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=`.status.addresses[*].address`
// +kubebuilder:printcolumn:name="Ports",type=string,JSONPath=`.spec.ports[*].port`
// +kubebuilder:printcolumn:name="Backends",type=string,JSONPath=`.status.backends`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Service struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ServiceSpec   `json:"spec"`
	Status            ServiceStatus `json:"status,omitempty"`
}

// Values of ServiceSpec.Locality.
const (
	LocalityAny  = "any"
	LocalityNode = "node" // backends on the caller's node while one is healthy, else of its zone, else any
	LocalityZone = "zone" // backends in the caller's zone while one is healthy, else any
)

// ServiceSpec is what people declare of a Service. Exactly one of selector,
// endpoints and externalName says what is behind it.
//
// +kubebuilder:validation:XValidation:rule="[has(self.selector), has(self.endpoints), has(self.externalName)].filter(x, x).size() == 1",message="a Service has exactly one of selector, endpoints and externalName"
type ServiceSpec struct {
	// Networks in which the Service has addresses.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=network
	Networks []ServiceNetwork `json:"networks"`
	// Ports of the Service.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(p, self.exists_one(q, q.port == p.port && q.protocol == p.protocol))",message="a port is there twice; give each port and protocol once"
	// +listType=atomic
	Ports []ServicePort `json:"ports"`
	// Selector of the Workloads of the project that serve it, each by its
	// interface in the Network of the address, or in a linked one.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// Endpoints are addresses that serve it: of the Network, or outside of all
	// Networks where the Network has spec.outside.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +listType=atomic
	// +optional
	Endpoints []ServiceEndpoint `json:"endpoints,omitempty"`
	// ExternalName is a DNS name outside; the addresses that it has serve it.
	// It is asked again when its TTL ends.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\.?$`
	// +optional
	ExternalName string `json:"externalName,omitempty"`
	// AffinitySeconds, when not 0, keeps one client address on one backend
	// until that long after its last new session.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=86400
	// +optional
	AffinitySeconds int32 `json:"affinitySeconds,omitempty"`
	// Locality: any, node or zone.
	// +kubebuilder:validation:Enum=any;node;zone
	// +kubebuilder:default=any
	// +optional
	Locality string `json:"locality,omitempty"`
	// Drain lists Workloads and endpoint addresses that get no new sessions
	// while their sessions go on.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	Drain []string `json:"drain,omitempty"`
	// Health check of each backend. Default: healthy while attached.
	// +optional
	Health *HealthCheck `json:"health,omitempty"`
}

// ServiceNetwork is one Network in which the Service has addresses.
type ServiceNetwork struct {
	// Network of the same project.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Network string `json:"network"`
	// Addresses of the Service: at most one IPv4 and one IPv6, inside the
	// prefixes. Default: one is allocated for each family that the Network has.
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="self.all(a, isIP(a))",message="each address must be an IP address without a prefix length, such as 10.0.0.5"
	// +kubebuilder:validation:XValidation:rule="size(self) < 2 || !isIP(self[0]) || !isIP(self[1]) || ip(self[0]).family() != ip(self[1]).family()",message="a Service has at most one IPv4 and one IPv6 address in a Network"
	// +listType=atomic
	// +optional
	Addresses []string `json:"addresses,omitempty"`
}

// ServicePort is one port of a Service.
type ServicePort struct {
	// Name of the port, for SRV records.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	Name string `json:"name,omitempty"`
	// +kubebuilder:validation:Enum=TCP;UDP;SCTP
	// +kubebuilder:default=TCP
	// +optional
	Protocol string `json:"protocol,omitempty"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// TargetPort of the backends. Default: Port.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	TargetPort int32 `json:"targetPort,omitempty"`
	// AppProtocol is what the backends speak on the port. Left out: HTTP where an
	// HTTPRoute or GRPCRoute is attached, else bytes that nobody looks into.
	// +kubebuilder:validation:Enum=http;http1;http2;grpc;https;tls;tcp;kubernetes.io/h2c;kubernetes.io/ws;kubernetes.io/wss
	// +optional
	AppProtocol string `json:"appProtocol,omitempty"`
}

// AppProtocols are the words of ServicePort.AppProtocol.
var AppProtocols = []string{"http", "http1", "http2", "grpc", "https", "tls", "tcp", "kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss"}

// ServiceEndpoint is one declared backend.
type ServiceEndpoint struct {
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="address must be an IP address without a prefix length, such as 192.0.2.7"
	Address string `json:"address"`
	// Weight: its share of new sessions, relative to the others.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:default=1
	// +optional
	Weight int32 `json:"weight,omitempty"`
	// Zone of the endpoint, for Locality.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Zone string `json:"zone,omitempty"`
}

// ServiceStatus is what the control plane decided and found out.
type ServiceStatus struct {
	// Addresses that the Service has.
	// +listType=atomic
	Addresses []ServiceAddress `json:"addresses,omitempty"`
	// Backends as "healthy/all".
	Backends string `json:"backends,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ServiceAddress is one address in one Network.
type ServiceAddress struct {
	Network string `json:"network"`
	Address string `json:"address"`
}

// ServiceList is a list of Services.
//
// +kubebuilder:object:root=true
type ServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Service `json:"items"`
}
