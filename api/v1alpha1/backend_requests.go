package v1alpha1

// Retry what is safe to send again: what was not sent at all, or is idempotent
// and still at hand.
type Retry struct {
	// Codes of answers that are tried again. Default 502, 503, 504.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Minimum=400
	// +kubebuilder:validation:items:Maximum=599
	// +listType=set
	// +optional
	Codes []int32 `json:"codes,omitempty"`
	// GRPC status codes that are tried again. Default 14 (UNAVAILABLE).
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=16
	// +listType=set
	// +optional
	GRPC []int32 `json:"grpc,omitempty"`
	// Attempts after the first. Default 1.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	// +optional
	Attempts int32 `json:"attempts,omitempty"`
	// Backoff before the first retry, doubled each time and jittered. Default 25ms.
	// +optional
	Backoff Duration `json:"backoff,omitempty"`
	// Methods that are idempotent beside GET, HEAD, OPTIONS, PUT, DELETE and TRACE.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=32
	// +kubebuilder:validation:items:Pattern=`^[A-Z]+$`
	// +listType=set
	// +optional
	Methods []string `json:"methods,omitempty"`
	// BodyBytes of a request that are kept for another try. Default 65536.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16777216
	// +optional
	BodyBytes int32 `json:"bodyBytes,omitempty"`
}

// Hedge sends an idempotent request a second time, elsewhere; the first answer
// wins.
type Hedge struct {
	// Delay after which there is a second try.
	Delay Duration `json:"delay"`
	// Most tries at a time. Default 2.
	// +kubebuilder:validation:Minimum=2
	// +kubebuilder:validation:Maximum=10
	// +optional
	Most int32 `json:"most,omitempty"`
}

// RequestTimeouts of requests. GRPCRoutes have none of their own.
type RequestTimeouts struct {
	// Request from its head to the end of its answer, all tries together.
	// +optional
	Request Duration `json:"request,omitempty"`
	// BackendRequest is for one try.
	// +optional
	BackendRequest Duration `json:"backendRequest,omitempty"`
}

// RateLimit is a token bucket of each proxy: what is over it is refused with 429.
type RateLimit struct {
	// Requests in each Per.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	Requests int32 `json:"requests"`
	// Per such a time.
	Per Duration `json:"per"`
	// Burst is the size of the bucket. Default: Requests.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	// +optional
	Burst int32 `json:"burst,omitempty"`
	// By makes a bucket for each caller: address, identity, or header:NAME.
	// Default: one for all.
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^(address|identity|header:[!#$%&'*+.^_|~0-9A-Za-z-]+)$`
	// +optional
	By string `json:"by,omitempty"`
}

// HashOn is one part of what is hashed.
//
// +kubebuilder:validation:XValidation:rule="[has(self.header), has(self.cookie), has(self.query), has(self.address) && self.address].filter(x, x).size() == 1",message="write exactly one of header, cookie, query and address"
type HashOn struct {
	// Header by name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[!#$%&'*+.^_|~0-9A-Za-z-]+$`
	// +optional
	Header string `json:"header,omitempty"`
	// Cookie by name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[!#$%&'*+.^_|~0-9A-Za-z-]+$`
	// +optional
	Cookie string `json:"cookie,omitempty"`
	// Query parameter by name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Query string `json:"query,omitempty"`
	// Address of the caller.
	// +optional
	Address bool `json:"address,omitempty"`
}
