package l7

// Kind of a Route: which of the Gateway API's routes it is.
type Kind string

// Kinds of a Route.
const (
	HTTPRoute Kind = "http"
	GRPCRoute Kind = "grpc"
	TLSRoute  Kind = "tls"
	TCPRoute  Kind = "tcp"
)

// Route says where requests or connections go. Its semantics are those of the
// Gateway API's route of the same kind, precedence included.
type Route struct {
	// Name, unique, project/name by habit; it is the route in records.
	Name string `json:"name"`
	Kind Kind   `json:"kind,omitempty"` // default HTTPRoute
	// Listeners by name that it is attached to; empty: all that fit its kind.
	Listeners []string `json:"listeners,omitempty"`
	// Hostnames, perhaps with a wildcard as first label; empty: those of the Listener.
	Hostnames []string `json:"hostnames,omitempty"`
	// Created, seconds since 1970: of two equal matches the older Route wins,
	// then the Name that sorts first.
	Created int64  `json:"created,omitempty"`
	Rules   []Rule `json:"rules"`
}

// Rule is one rule of a Route. No Matches: everything.
type Rule struct {
	Name    string   `json:"name,omitempty"`
	Matches []Match  `json:"matches,omitempty"`
	Filters []Filter `json:"filters,omitempty"`
	// Backends by weight; none and no redirect: 500 (HTTPRoute) or 14 (GRPCRoute).
	Backends []Backend `json:"backends,omitempty"`
	Timeouts Timeouts  `json:"timeouts,omitzero"`
	Retry    *Retry    `json:"retry,omitempty"`
	Hedge    *Hedge    `json:"hedge,omitempty"`
	Fault    *Fault    `json:"fault,omitempty"`
	// RateLimits all have to agree.
	RateLimits []RateLimit `json:"rateLimits,omitempty"`
	// Hash says what of a request ring hash and Maglev hash; empty: the caller's address.
	Hash []HashOn `json:"hash,omitempty"`
	// Subset of the cluster's endpoints by label.
	Subset map[string]string `json:"subset,omitempty"`
}

// MatchKind is how a value is compared.
type MatchKind string

// MatchKinds.
const (
	Exact  MatchKind = "Exact"      // default
	Prefix MatchKind = "PathPrefix" // by path element; paths only
	Regex  MatchKind = "RegularExpression"
)

// Match is met when all that it has is met.
type Match struct {
	Path    *PathMatch   `json:"path,omitempty"`
	Method  string       `json:"method,omitempty"`
	Headers []ValueMatch `json:"headers,omitempty"`
	Query   []ValueMatch `json:"query,omitempty"`
	// GRPC, of a GRPCRoute; empty strings match all.
	GRPC *GRPCMatch `json:"grpc,omitempty"`
}

// PathMatch compares the path without query.
type PathMatch struct {
	Kind  MatchKind `json:"kind,omitempty"`
	Value string    `json:"value"`
}

// ValueMatch compares a header or a query parameter.
type ValueMatch struct {
	Kind  MatchKind `json:"kind,omitempty"` // Exact or RegularExpression
	Name  string    `json:"name"`
	Value string    `json:"value"`
}

// GRPCMatch compares service and method.
type GRPCMatch struct {
	Kind    MatchKind `json:"kind,omitempty"`
	Service string    `json:"service,omitempty"`
	Method  string    `json:"method,omitempty"`
}

// Backend is one destination of a Rule.
type Backend struct {
	Cluster string `json:"cluster"`
	// Weight; nil: 1. A share of 0 gets nothing.
	Weight  *uint32  `json:"weight,omitempty"`
	Filters []Filter `json:"filters,omitempty"`
}

// Filter has exactly one part.
type Filter struct {
	RequestHeaders  *HeaderChange `json:"requestHeaders,omitempty"`
	ResponseHeaders *HeaderChange `json:"responseHeaders,omitempty"`
	Redirect        *Redirect     `json:"redirect,omitempty"`
	Rewrite         *Rewrite      `json:"rewrite,omitempty"`
	Mirror          *Mirror       `json:"mirror,omitempty"`
	CORS            *CORS         `json:"cors,omitempty"`
}

// HeaderChange is done in the order set, add, remove.
type HeaderChange struct {
	Set    []Header `json:"set,omitempty"`
	Add    []Header `json:"add,omitempty"`
	Remove []string `json:"remove,omitempty"`
}

// Header is one name and value.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Redirect answers with a Location.
type Redirect struct {
	Scheme   string      `json:"scheme,omitempty"`
	Hostname string      `json:"hostname,omitempty"`
	Path     *PathChange `json:"path,omitempty"`
	Port     int         `json:"port,omitempty"`
	// Status 301, 302 (default), 303, 307 or 308.
	Status int `json:"status,omitempty"`
}

// Rewrite changes host and path before the request goes on.
type Rewrite struct {
	Hostname string      `json:"hostname,omitempty"`
	Path     *PathChange `json:"path,omitempty"`
}

// PathChange has exactly one part.
type PathChange struct {
	Full *string `json:"full,omitempty"`
	// Prefix replaces what the PathPrefix match of the rule matched.
	Prefix *string `json:"prefix,omitempty"`
}

// Mirror sends a copy whose answer nobody waits for.
type Mirror struct {
	Cluster string `json:"cluster"`
	// Fraction of requests, Numerator of Denominator (default 100); nil: all.
	Fraction *Fraction `json:"fraction,omitempty"`
}

// Fraction is Numerator / Denominator.
type Fraction struct {
	Numerator   uint32 `json:"numerator"`
	Denominator uint32 `json:"denominator,omitempty"`
}

// CORS answers preflights and adds what the Fetch standard asks for.
type CORS struct {
	AllowOrigins     []string `json:"allowOrigins,omitempty"`
	AllowMethods     []string `json:"allowMethods,omitempty"`
	AllowHeaders     []string `json:"allowHeaders,omitempty"`
	ExposeHeaders    []string `json:"exposeHeaders,omitempty"`
	AllowCredentials bool     `json:"allowCredentials,omitempty"`
	// MaxAge in seconds; default 5.
	MaxAge int `json:"maxAge,omitempty"`
}

// Timeouts of a Rule; zero: none.
type Timeouts struct {
	// Request from its head to the end of its answer, all tries together.
	Request Duration `json:"request,omitzero"`
	// Backend is for one try.
	Backend Duration `json:"backend,omitzero"`
}
