package v1alpha1

// Modes of Outside.
const (
	OutsideNode    = "node"    // each node translates to its own underlay address
	OutsideGateway = "gateway" // gateway nodes translate to egress addresses
)

// Outside says how a Network reaches what is outside of all Networks. Nothing
// from outside comes in but replies and what a FloatingIP lets in.
//
// +kubebuilder:validation:XValidation:rule="self.mode != 'gateway' || has(self.gateways) && has(self.addresses)",message="mode gateway needs gateways and addresses"
// +kubebuilder:validation:XValidation:rule="self.mode == 'gateway' || !has(self.gateways) && !has(self.addresses)",message="gateways and addresses need mode gateway"
type Outside struct {
	// Mode: node or gateway.
	// +kubebuilder:validation:Enum=node;gateway
	// +kubebuilder:default=node
	// +optional
	Mode string `json:"mode,omitempty"`
	// Gateways are the Nodes that may hold Addresses; the first that is alive
	// does, and the next takes over.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=atomic
	// +optional
	Gateways []string `json:"gateways,omitempty"`
	// Addresses of the underlay that the Network has as its source: at most
	// one IPv4 and one IPv6. Another Network may have the same ones only if it
	// is of the same project.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="self.all(a, isIP(a))",message="each address must be an IP address without a prefix length, such as 192.0.2.7"
	// +kubebuilder:validation:XValidation:rule="size(self) < 2 || !isIP(self[0]) || !isIP(self[1]) || ip(self[0]).family() != ip(self[1]).family()",message="a Network has at most one IPv4 and one IPv6 address outside"
	// +listType=atomic
	// +optional
	Addresses []string `json:"addresses,omitempty"`
	// Hosts are ports of the nodes themselves that Workloads may reach, at the
	// underlay address of any node. Default: none; the nodes are not outside.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Hosts []Port `json:"hosts,omitempty"`
}

// DNS says what a Network's name service does beside answering the names of
// Workloads, Services and FloatingIPs, <name>.<project>.<zone>.
type DNS struct {
	// Zone of the names.
	// +kubebuilder:validation:MaxLength=200
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:default="moire.internal"
	// +optional
	Zone string `json:"zone,omitempty"`
	// Search domains that Workloads get, after <project>.<zone> and <zone>.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=atomic
	// +optional
	Search []string `json:"search,omitempty"`
	// TTLSeconds of answers.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	// +kubebuilder:default=5
	// +optional
	TTLSeconds int32 `json:"ttlSeconds,omitempty"`
	// Order of several addresses in an answer.
	// +kubebuilder:validation:Enum=random;fixed;round-robin
	// +kubebuilder:default=random
	// +optional
	Order string `json:"order,omitempty"`
	// Records of the tenant's own.
	// +kubebuilder:validation:MaxItems=512
	// +listType=atomic
	// +optional
	Records []DNSRecord `json:"records,omitempty"`
	// Delegations send the names of a zone to servers of their own.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=zone
	// +optional
	Delegations []Delegation `json:"delegations,omitempty"`
	// Forward: the servers, address or address:port, for every other name.
	// Default: what the node itself uses. They are asked from inside the
	// Network when one of its prefixes or of a linked one has the address, else
	// by the node.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=60
	// +listType=atomic
	// +optional
	Forward []string `json:"forward,omitempty"`
	// NoForward refuses every other name instead.
	// +optional
	NoForward bool `json:"noForward,omitempty"`
}

// DNSRecord is one record.
type DNSRecord struct {
	// Name, absolute with a full stop at the end, else inside
	// <project>.<zone>; "*" as the first label matches any.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// +kubebuilder:validation:Enum=A;AAAA;CNAME;TXT;SRV;MX;PTR;NS;CAA
	Type string `json:"type"`
	// Data in the form of a zone file, such as "10 mail.example.com." for MX.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Data string `json:"data"`
	// TTLSeconds. Default: that of the Network.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=604800
	// +optional
	TTLSeconds int32 `json:"ttlSeconds,omitempty"`
}

// Delegation sends the names of a zone elsewhere.
type Delegation struct {
	// Zone, without a full stop at the end.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Zone string `json:"zone"`
	// Servers, address or address:port.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=60
	// +listType=atomic
	Servers []string `json:"servers"`
}

// Limit bounds a rate in bits per second of IP packets, such as 100M or 1.5G
// (powers of 1000). Empty: no limit.
type Limit struct {
	// Egress: what Workloads send.
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:Pattern=`^[0-9]+(\.[0-9]+)?[kMG]?$`
	// +optional
	Egress string `json:"egress,omitempty"`
	// Ingress: what Workloads receive.
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:Pattern=`^[0-9]+(\.[0-9]+)?[kMG]?$`
	// +optional
	Ingress string `json:"ingress,omitempty"`
}

// What a Consent is for.
const (
	ConsentLink       = "link"
	ConsentFloatingIP = "floatingIP"
	ConsentAttach     = "attach"
)

// Consent lets another project refer to this Network.
type Consent struct {
	// Project that may. "*": every project of Domain.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Project string `json:"project"`
	// Domain of the project. Default: the Network's own; a project of another
	// Domain needs it.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Domain string `json:"domain,omitempty"`
	// For: link, floatingIP (take an address of this pool), attach (an
	// interface of its Workloads). Default: link.
	// +kubebuilder:validation:items:Enum=link;floatingIP;attach
	// +listType=set
	// +kubebuilder:default={link}
	// +optional
	For []string `json:"for,omitempty"`
}

// Purposes are what the Consent is for: For, or its default when that was left
// out. An empty list is for nothing.
func (c *Consent) Purposes() []string {
	if c.For == nil {
		return []string{ConsentLink}
	}
	return c.For
}
