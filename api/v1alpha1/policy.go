package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Policy is permission: who may talk to whom, and how. Tiers decide the
// order: admin (accept, deny, pass), then project (deny before allow; once a
// Policy selects a Workload in a direction, the rest is denied), then baseline
// (allow, deny), then the default of the Network.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=pol
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Policy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              PolicySpec   `json:"spec"`
	Status            PolicyStatus `json:"status,omitempty"`
}

// Tiers of a Policy, in the order in which they are asked.
const (
	TierAdmin    = "admin"
	TierProject  = "project"
	TierBaseline = "baseline"
)

// Actions of a rule.
const (
	ActionAccept = "accept" // admin tier: allowed, no later tier is asked
	ActionPass   = "pass"   // admin tier: the next tier decides
	ActionAllow  = "allow"  // project and baseline tier
	ActionDeny   = "deny"   // every tier
)

// Modes of a Policy.
const (
	ModeEnforce = "enforce"
	ModeAudit   = "audit" // never changes the verdict; records say what it would do
)

// PolicySpec is what people declare of a Policy.
//
// +kubebuilder:validation:XValidation:rule="self.tier == 'admin' || (!has(self.ingress) || self.ingress.all(r, r.action in ['allow','deny'])) && (!has(self.egress) || self.egress.all(r, r.action in ['allow','deny']))",message="accept and pass exist only in tier admin; use allow or deny"
// +kubebuilder:validation:XValidation:rule="self.tier != 'admin' || (!has(self.ingress) || self.ingress.all(r, r.action in ['accept','deny','pass'])) && (!has(self.egress) || self.egress.all(r, r.action in ['accept','deny','pass']))",message="tier admin has the actions accept, deny and pass; use accept instead of allow"
// +kubebuilder:validation:XValidation:rule="!has(self.ingress) || self.ingress.all(r, !has(r.to))",message="an ingress rule has from, not to; move the peers to from or the rule to egress"
// +kubebuilder:validation:XValidation:rule="!has(self.egress) || self.egress.all(r, !has(r.from))",message="an egress rule has to, not from; move the peers to to or the rule to ingress"
// +kubebuilder:validation:XValidation:rule="!has(self.ingress) || self.ingress.all(r, !has(r.from) || r.from.all(p, !has(p.service) && !has(p.name)))",message="service and name say where something goes, so they exist only in to of egress rules; use labels, network, project or cidr"
// +kubebuilder:validation:XValidation:rule="self.tier != 'project' || !has(self.subject) || !has(self.subject.projects)",message="a project Policy selects Workloads of its own project only; remove subject.projects or use tier admin"
// +kubebuilder:validation:XValidation:rule="has(self.ingress) || has(self.egress)",message="a Policy without ingress and egress does nothing; write ingress: [] to deny everything that comes in"
type PolicySpec struct {
	// Tier: admin and baseline Policies hold for every project of the Domain
	// (or, in namespace moire-system, of every Domain) and may be written only
	// by who may "manage" the Domain.
	// +kubebuilder:validation:Enum=admin;project;baseline
	// +kubebuilder:default=project
	// +optional
	Tier string `json:"tier,omitempty"`
	// Priority orders the Policies of the tiers admin and baseline: the lowest
	// number is asked first, equal numbers by project and name.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:default=100
	// +optional
	Priority int32 `json:"priority"` // 0 is a priority, so it is always written
	// Mode: enforce, or audit to see in records what the Policy would do.
	// +kubebuilder:validation:Enum=enforce;audit
	// +kubebuilder:default=enforce
	// +optional
	Mode string `json:"mode,omitempty"`
	// Subject selects the Workloads that the Policy protects. Default: all.
	// +optional
	Subject *Subject `json:"subject,omitempty"`
	// Ingress rules: what may come in. An empty list selects the direction and
	// allows nothing; leave it out to say nothing about the direction.
	// +kubebuilder:validation:MaxItems=128
	// +listType=atomic
	// +optional
	Ingress []Rule `json:"ingress,omitzero"` // omitzero: an empty list is not nothing
	// Egress rules: what may go out. As Ingress.
	// +kubebuilder:validation:MaxItems=128
	// +listType=atomic
	// +optional
	Egress []Rule `json:"egress,omitzero"`
}

// PolicyStatus is what the control plane found out.
type PolicyStatus struct {
	// Conditions: Ready is False when something that the Policy names does not
	// exist or cannot be; it is True with a message when a rule has no effect.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Subject selects Workloads; every field that is set must match.
type Subject struct {
	// Labels of the Workload: matchLabels and matchExpressions.
	// +optional
	Labels *metav1.LabelSelector `json:"labels,omitempty"`
	// Networks: the interface must be in one of these.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	Networks []string `json:"networks,omitempty"`
	// Projects (tiers admin and baseline): the Workload must be in one of these.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	// +optional
	Projects []string `json:"projects,omitempty"`
}

// Rule matches traffic and says what happens to it. With http, grpc, jwt or
// external it is about requests: it matches TCP, and there only the requests
// that any entry of http or grpc is met by, whose token is as jwt says, and to
// which external agrees. A proxy then decides about each request; what it cannot
// read as HTTP is denied.
//
// +kubebuilder:validation:XValidation:rule="!has(self.external) || self.action in ['allow','accept']",message="external says what may pass, so it exists only in rules that allow or accept"
// +kubebuilder:validation:XValidation:rule="!(has(self.http) || has(self.grpc) || has(self.jwt) || has(self.external)) || !has(self.ports) || size(self.ports) == 0 || self.ports.exists(p, !has(p.protocol) || p.protocol == 'TCP')",message="requests travel in TCP; give the rule a TCP port, or leave ports out"
type Rule struct {
	// Name makes the rule id stable when rules are reordered. Default: the
	// index in the list.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	Name string `json:"name,omitempty"`
	// Action: allow or deny; in tier admin accept, deny or pass.
	// +kubebuilder:validation:Enum=allow;deny;accept;pass
	Action string `json:"action"`
	// From (ingress): any of these peers. Default: everybody.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	From []Peer `json:"from,omitempty"`
	// To (egress): any of these peers. Default: everybody.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	To []Peer `json:"to,omitempty"`
	// Ports: any of these. Default: every protocol and port.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Ports []Port `json:"ports,omitempty"`
	// MatchEqual lists label keys that both ends must have with the same value:
	// one rule serves every environment. It matches Workloads only.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=317
	// +listType=set
	// +optional
	MatchEqual []string `json:"matchEqual,omitempty"`
	// HTTP: requests that any of these is met by.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	HTTP []HTTPMatch `json:"http,omitempty"`
	// GRPC: calls that any of these is met by.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	GRPC []GRPCMatch `json:"grpc,omitempty"`
	// JWT is the token that a request must bear.
	// +optional
	JWT *JWTMatch `json:"jwt,omitempty"`
	// External names an authorizer of the Domain, which is asked when all else
	// matches, and has to agree.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	External string `json:"external,omitempty"`
}

// AboutRequests says whether requests have to be seen to know if the rule
// matches.
func (r *Rule) AboutRequests() bool {
	return len(r.HTTP) > 0 || len(r.GRPC) > 0 || r.JWT != nil || r.External != ""
}

// Peer is the other side; every field that is set must match.
//
// +kubebuilder:validation:XValidation:rule="has(self.labels) || has(self.network) || has(self.project) || has(self.cidr) || has(self.service) || has(self.name)",message="an empty peer matches nobody; set labels, network, project, cidr, service or name, or leave the whole list out for everybody"
// +kubebuilder:validation:XValidation:rule="!has(self.except) || has(self.cidr)",message="except needs cidr"
// +kubebuilder:validation:XValidation:rule="!has(self.name) || !has(self.labels) && !has(self.network) && !has(self.project) && !has(self.cidr) && !has(self.service)",message="name stands alone; write another peer for the rest"
// +kubebuilder:validation:XValidation:rule="!has(self.service) || !has(self.labels) && !has(self.network) && !has(self.cidr)",message="service stands alone or with project; write another peer for the rest"
type Peer struct {
	// Labels of the peer Workload: matchLabels and matchExpressions.
	// +optional
	Labels *metav1.LabelSelector `json:"labels,omitempty"`
	// Network: the peer's interface is in this Network of the peer's project.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Network string `json:"network,omitempty"`
	// Project of the peer; "*" is every project of the Domain. Default with
	// labels or network: the Policy's own project (tier project) or every
	// project (tiers admin and baseline).
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Project string `json:"project,omitempty"`
	// CIDR that contains the peer's address.
	// +kubebuilder:validation:MaxLength=50
	// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self) == cidr(self).masked()",message="cidr must be a CIDR without host bits, such as 10.0.0.0/24"
	// +optional
	CIDR string `json:"cidr,omitempty"`
	// Except lists parts of CIDR that do not match.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=50
	// +kubebuilder:validation:XValidation:rule="self.all(e, isCIDR(e))",message="each exception must be a CIDR, such as 10.0.0.8/32"
	// +listType=atomic
	// +optional
	Except []string `json:"except,omitempty"`
	// Service (egress): whoever is behind this Service of the peer's project,
	// at the target ports that the rule's ports allow.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Service string `json:"service,omitempty"`
	// Name (egress): a DNS name outside, such as api.example.com or
	// *.example.com (any number of labels). It matches the addresses that the
	// Network's own name service told a Workload of this identity on the same node
	// for such a name, as long as the answer is valid or a session lives, and no
	// other way.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^(\*\.)?([A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\.?$`
	// +optional
	Name string `json:"name,omitempty"`
}

// Port is a protocol with, where it has ports, a port or a range.
//
// +kubebuilder:validation:XValidation:rule="self.protocol != 'ICMP' || !has(self.port)",message="ICMP has no ports; remove port"
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || has(self.port) && self.endPort >= self.port",message="endPort needs port and must not be smaller than port"
type Port struct {
	// Protocol; ICMP means ICMP for IPv4 and ICMPv6 for IPv6.
	// +kubebuilder:validation:Enum=TCP;UDP;SCTP;ICMP
	// +kubebuilder:default=TCP
	// +optional
	Protocol string `json:"protocol,omitempty"`
	// Port, the destination port. Default: every port of the protocol.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port,omitempty"`
	// EndPort makes it a range from Port to EndPort, both included.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	EndPort int32 `json:"endPort,omitempty"`
}

// PolicyList is a list of Policies.
//
// +kubebuilder:object:root=true
type PolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Policy `json:"items"`
}
