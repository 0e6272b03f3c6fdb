package policy

// MatchKind is how a text is compared.
type MatchKind uint8

// MatchKinds.
const (
	Exact   MatchKind = iota
	Prefix            // of a path, by element: /a matches /a and /a/b, not /ab
	Suffix            // *.example.com of a host
	Present           // of a header or a claim: it is there, whatever its value
	Regex             // RE2, the whole text
)

// TextMatch compares one text.
type TextMatch struct {
	Kind  MatchKind
	Value string
}

// NamedMatch compares what has a name: a header, or a claim of a token, where
// one of several values is enough.
type NamedMatch struct {
	Name string
	TextMatch
	// Not: it matches when nothing there compares.
	Not bool
}

// RequestMatch is the part of a rule about requests; all that is set must match.
type RequestMatch struct {
	// Methods, upper case: any of them.
	Methods []string
	// Paths: any of them, compared with the path without query in its normal form,
	// as the endpoint gets it.
	Paths []TextMatch
	// Hosts, lower case without port: any of them. Exact or Suffix.
	Hosts []TextMatch
	// Headers: all of them, names in lower case.
	Headers []NamedMatch
	// GRPC: any of these calls; the request must be gRPC.
	GRPC []Call
	// Token, when set, must be valid for the request and say all this.
	Token *Token
	// External, when not empty, names the service that is asked (Envoy's ext_authz);
	// the rule matches when it agrees. For an allow rule only.
	External string
}

// Call is a gRPC service and method; an empty one matches all.
type Call struct{ Service, Method string }

// Token is what a JSON Web Token (RFC 7519) must be. No token, one that cannot be
// verified or has ended, or keys that are not at hand: it does not match.
type Token struct {
	Issuer string
	// Audiences: the token is for one of them; none: for anybody.
	Audiences []string
	// Keys is the URI of the issuer's JWK set, a key of Snapshot.KeySets.
	Keys   string
	Claims []NamedMatch
}

// Request is what is decided about, as the endpoint gets it.
type Request struct {
	Method, Path, Host string
	// GRPC: it is a gRPC call, of Path.
	GRPC bool
	// Header gives the values of a field by its name in lower case, in order.
	Header func(name string) []string
	// Token says whether the request bears a token as wanted; nil: it does not.
	Token func(*Token) bool
	// External asks the service of that name; nil: it does not agree.
	External func(name string) bool
}
