package v1alpha1

// Kinds of a Balancer.
const (
	BalancerRoundRobin   = "RoundRobin"
	BalancerLeastRequest = "LeastRequest"
	BalancerPeakEWMA     = "PeakEWMA"
	BalancerRandom       = "Random"
	BalancerRingHash     = "RingHash"
	BalancerMaglev       = "Maglev"
)

// Balancer chooses among endpoints.
//
// +kubebuilder:validation:XValidation:rule="!has(self.choices) || (has(self.kind) ? self.kind : 'LeastRequest') in ['LeastRequest', 'PeakEWMA']",message="choices are for LeastRequest and PeakEWMA"
// +kubebuilder:validation:XValidation:rule="!has(self.ringSize) || has(self.kind) && self.kind == 'RingHash'",message="ringSize is for RingHash"
// +kubebuilder:validation:XValidation:rule="!has(self.decay) || has(self.kind) && self.kind == 'PeakEWMA'",message="decay is for PeakEWMA"
type Balancer struct {
	// Kind: LeastRequest (of two at random), PeakEWMA (the same, by the latency
	// of late), RoundRobin, Random, RingHash or Maglev.
	// +kubebuilder:validation:Enum=RoundRobin;LeastRequest;PeakEWMA;Random;RingHash;Maglev
	// +kubebuilder:default=LeastRequest
	// +optional
	Kind string `json:"kind,omitempty"`
	// SlowStart is the time in which a new endpoint comes to its full share.
	// +optional
	SlowStart Duration `json:"slowStart,omitempty"`
	// PanicPercent: with fewer endpoints well than that, all are used; 0: never.
	// Default 50.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	PanicPercent *int32 `json:"panicPercent,omitempty"`
	// Choices at random of which the better one is taken. Default 2.
	// +kubebuilder:validation:Minimum=2
	// +kubebuilder:validation:Maximum=100
	// +optional
	Choices int32 `json:"choices,omitempty"`
	// RingSize is the least number of points of the ring. Default 1024.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8388608
	// +optional
	RingSize int32 `json:"ringSize,omitempty"`
	// Decay of the measured latency. Default 10s.
	// +optional
	Decay Duration `json:"decay,omitempty"`
}

// Outlier leaves endpoints out for a while that fail or are slow. What is not
// set has the default in brackets.
type Outlier struct {
	// Consecutive5xx answers or errors in a row (5); 0: does not count.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Consecutive5xx *int32 `json:"consecutive5xx,omitempty"`
	// ConsecutiveGateway: 502, 503, 504 or errors in a row (0: does not count).
	// +kubebuilder:validation:Minimum=0
	// +optional
	ConsecutiveGateway *int32 `json:"consecutiveGateway,omitempty"`
	// Interval between two looks at rates and latencies (10s).
	// +optional
	Interval Duration `json:"interval,omitempty"`
	// BaseEjection times the number of ejections is how long it is left out (30s).
	// +optional
	BaseEjection Duration `json:"baseEjection,omitempty"`
	// MaxEjection is the longest that one is left out (300s).
	// +optional
	MaxEjection Duration `json:"maxEjection,omitempty"`
	// MaxEjectionPercent of the endpoints that are out at a time (10), but at least
	// one.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	MaxEjectionPercent *int32 `json:"maxEjectionPercent,omitempty"`
	// SuccessRate compares endpoints with each other.
	// +optional
	SuccessRate *OutlierRate `json:"successRate,omitempty"`
	// FailurePercent of answers of one endpoint from which it is left out (0: does
	// not count).
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	FailurePercent *int32 `json:"failurePercent,omitempty"`
	// FailureHosts: that many endpoints must have enough requests (5).
	// +kubebuilder:validation:Minimum=0
	// +optional
	FailureHosts *int32 `json:"failureHosts,omitempty"`
	// FailureVolume of requests in an interval is enough (50).
	// +kubebuilder:validation:Minimum=0
	// +optional
	FailureVolume *int32 `json:"failureVolume,omitempty"`
	// LatencyPercent: whose mean latency is above this many percent of the median
	// of all is left out; 300 is three times as slow (0: does not count).
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=100000
	// +optional
	LatencyPercent int32 `json:"latencyPercent,omitempty"`
}

// OutlierRate leaves endpoints out whose success rate is far below the mean.
type OutlierRate struct {
	// Hosts: that many endpoints must have enough requests (5).
	// +kubebuilder:validation:Minimum=0
	// +optional
	Hosts *int32 `json:"hosts,omitempty"`
	// Volume of requests in an interval is enough (100).
	// +kubebuilder:validation:Minimum=0
	// +optional
	Volume *int32 `json:"volume,omitempty"`
	// FactorPerMille: below the mean by this many thousandths of the standard
	// deviation (1900); 0: does not count.
	// +kubebuilder:validation:Minimum=0
	// +optional
	FactorPerMille *int32 `json:"factorPerMille,omitempty"`
}

// ActiveCheck asks endpoints whether they are well: the node of each does, from
// inside the Network and past all Policies. One that fails gets nothing new, from
// nobody; when all fail, nobody is called. With TLS the certificate is not looked
// at.
//
// +kubebuilder:validation:XValidation:rule="self.type == 'http' || !(has(self.path) || has(self.host) || has(self.statuses))",message="path, host and statuses are for http checks"
// +kubebuilder:validation:XValidation:rule="self.type == 'grpc' || !has(self.service)",message="service is for grpc checks"
type ActiveCheck struct {
	// Type: http, grpc (grpc.health.v1) or tcp.
	// +kubebuilder:validation:Enum=http;grpc;tcp
	Type string `json:"type"`
	// Path of an http check. Default /.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/`
	// +optional
	Path string `json:"path,omitempty"`
	// Host of an http check. Default: the endpoint's address.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Host string `json:"host,omitempty"`
	// Statuses that are well. Default 200.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=100
	// +kubebuilder:validation:items:Maximum=599
	// +listType=set
	// +optional
	Statuses []int32 `json:"statuses,omitempty"`
	// Service of a grpc check. Default: the whole server.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Service string `json:"service,omitempty"`
	// Interval between checks. Default 5s.
	// +optional
	Interval Duration `json:"interval,omitempty"`
	// Timeout of one check. Default 1s.
	// +optional
	Timeout Duration `json:"timeout,omitempty"`
	// Successes in a row that make it well. Default 2.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	Successes int32 `json:"successes,omitempty"`
	// Failures in a row that make it unwell. Default 3.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	Failures int32 `json:"failures,omitempty"`
}

// BackendLimits of what one proxy does at a time towards the Service; what is
// over them is refused with 503.
type BackendLimits struct {
	// Connections. Default 16384.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Connections int32 `json:"connections,omitempty"`
	// Pending requests, which wait for a connection. Default 16384.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Pending int32 `json:"pending,omitempty"`
	// Requests. Default 16384.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Requests int32 `json:"requests,omitempty"`
	// Retries, where there is no budget. Default 3.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Retries int32 `json:"retries,omitempty"`
	// RetryBudget limits retries to a share of what is active.
	// +optional
	RetryBudget *RetryBudget `json:"retryBudget,omitempty"`
}

// RetryBudget limits retries to a share of what is active.
type RetryBudget struct {
	// Percent of the active requests.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Percent int32 `json:"percent"`
	// Minimum that is always allowed at a time. Default 3.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Minimum int32 `json:"minimum,omitempty"`
}

// BackendConnections says how connections to endpoints are made and kept.
type BackendConnections struct {
	// ConnectTimeout. Default 5s.
	// +optional
	ConnectTimeout Duration `json:"connectTimeout,omitempty"`
	// IdleTimeout of a pooled connection. Default 1m.
	// +optional
	IdleTimeout Duration `json:"idleTimeout,omitempty"`
	// MaxRequests on one connection before another is made. Default: no end.
	// +kubebuilder:validation:Minimum=1
	// +optional
	MaxRequests int32 `json:"maxRequests,omitempty"`
	// ProxyProtocol 1 or 2 is written in front, to endpoints that are not in the
	// mesh.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2
	// +optional
	ProxyProtocol int32 `json:"proxyProtocol,omitempty"`
}

// BackendTLS is how endpoints that are not in the mesh are spoken to.
//
// +kubebuilder:validation:XValidation:rule="!has(self.insecure) || !self.insecure || !(has(self.ca) || has(self.servers))",message="with insecure nothing is verified, so ca and servers mean nothing"
type BackendTLS struct {
	// Hostname that is sent (SNI) and that the certificate must have. Default: that
	// of the request.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +optional
	Hostname string `json:"hostname,omitempty"`
	// CA is the PEM bundle that the certificate must come from. Default: that of
	// the node.
	// +kubebuilder:validation:MaxLength=262144
	// +optional
	CA string `json:"ca,omitempty"`
	// Servers are URIs (subject alternative names) of which the certificate must
	// have one, in place of the hostname.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=2048
	// +kubebuilder:validation:items:Pattern=`^[a-z][a-z0-9+.-]*://[^/]+`
	// +listType=set
	// +optional
	Servers []string `json:"servers,omitempty"`
	// MinVersion: 1.2 or 1.3. Default 1.2.
	// +kubebuilder:validation:Enum="1.2";"1.3"
	// +optional
	MinVersion string `json:"minVersion,omitempty"`
	// Insecure verifies nothing.
	// +optional
	Insecure bool `json:"insecure,omitempty"`
}

// BackendLocality prefers endpoints of the caller's zone (spec.zone of the Node).
type BackendLocality struct {
	// OverprovisionPercent: the share that goes to other zones grows when healthy
	// endpoints times this are fewer than all. Default 140.
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=100000
	// +kubebuilder:default=140
	// +optional
	OverprovisionPercent int32 `json:"overprovisionPercent,omitempty"`
}
