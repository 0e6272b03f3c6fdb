package v1alpha1

// HTTPMatch is met by an HTTP request that meets all that it has; an empty one
// by every HTTP request.
type HTTPMatch struct {
	// Methods: any of these, in upper case. Default: all.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=32
	// +kubebuilder:validation:items:Pattern=`^[!#$%&'*+.^_|~0-9A-Z-]+$`
	// +listType=set
	// +optional
	Methods []string `json:"methods,omitempty"`
	// Paths: any of these. Default: all.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Paths []PathMatch `json:"paths,omitempty"`
	// Hosts: any of these names, or with "*." in front any name below one. Case
	// and port do not count. Default: all.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^(\*\.)?[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*$`
	// +listType=set
	// +optional
	Hosts []string `json:"hosts,omitempty"`
	// Headers: all of these.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	Headers []NamedMatch `json:"headers,omitempty"`
}

// PathMatch compares the path of a request, without its query, in the normal
// form in which the Workload gets it.
//
// +kubebuilder:validation:XValidation:rule="[has(self.exact), has(self.prefix), has(self.regex)].filter(x, x).size() == 1",message="a path is compared in exactly one way; write exact, prefix or regex"
type PathMatch struct {
	// Exact: the path is this.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^/`
	// +optional
	Exact string `json:"exact,omitempty"`
	// Prefix: the path begins with these elements: /a is met by /a and /a/b, not
	// by /ab.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^/`
	// +optional
	Prefix string `json:"prefix,omitempty"`
	// Regex: the whole path is what this regular expression (RE2) says.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="''.matches(self) in [true, false]",message="it must be a regular expression in the syntax of RE2"
	// +optional
	Regex string `json:"regex,omitempty"`
}

// NamedMatch compares a header of a request or a claim of a token.
//
// +kubebuilder:validation:XValidation:rule="[has(self.exact), has(self.regex), has(self.present) && self.present].filter(x, x).size() == 1",message="a value is compared in exactly one way; write exact, regex or present: true"
type NamedMatch struct {
	// Name of the header, in any case, or of the claim; dots lead into objects.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Exact: the value is this.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Exact *string `json:"exact,omitempty"`
	// Regex: the whole value is what this regular expression (RE2) says.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="''.matches(self) in [true, false]",message="it must be a regular expression in the syntax of RE2"
	// +optional
	Regex string `json:"regex,omitempty"`
	// Present: it is there, whatever its value.
	// +optional
	Present bool `json:"present,omitempty"`
	// Not turns the answer round: what compares does not match.
	// +optional
	Not bool `json:"not,omitempty"`
}

// GRPCMatch is met by a gRPC call that meets all that it has; an empty one by
// every gRPC call.
type GRPCMatch struct {
	// Service as in the .proto file, with its package: shop.v1.Cart. Default: all.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_.]*$`
	// +optional
	Service string `json:"service,omitempty"`
	// Method of the service. Default: all.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_]*$`
	// +optional
	Method string `json:"method,omitempty"`
	// Headers: all of these; gRPC calls them metadata.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	Headers []NamedMatch `json:"headers,omitempty"`
}

// JWTMatch is met by a request that bears a JSON Web Token (RFC 7519), in the
// header authorization as a bearer token, which the issuer signed and which is
// valid now.
//
// +kubebuilder:validation:XValidation:rule="has(self.jwksURI) != has(self.jwks)",message="the keys of the issuer are in exactly one place; write jwksURI or jwks"
type JWTMatch struct {
	// Issuer: the claim iss.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Issuer string `json:"issuer"`
	// Audiences: one of them is in the claim aud. Default: any.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	Audiences []string `json:"audiences,omitempty"`
	// JWKSURI is where the keys of the issuer are, a JWK set (RFC 7517). They are
	// fetched before they are needed, and kept; keys that are too old verify nothing.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^https://[^/?#@]+(/.*)?$`
	// +optional
	JWKSURI string `json:"jwksURI,omitempty"`
	// JWKS are the keys themselves, a JWK set (RFC 7517).
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	// +optional
	JWKS string `json:"jwks,omitempty"`
	// Claims: all of these.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	Claims []NamedMatch `json:"claims,omitempty"`
}
