package policy

import "fmt"

// MatchKind is how a text is compared.
type MatchKind uint8

// MatchKinds.
const (
	Exact   MatchKind = iota
	Prefix            // of a path, by element: /a matches /a and /a/b, not /ab
	Suffix            // of a host: .example.com matches every name that ends so, and is longer
	Present           // of a header or a claim: it is there, whatever its value
	Regex             // RE2, the whole text
)

// TextMatch compares one text.
type TextMatch struct {
	Kind  MatchKind
	Value string
}

// NamedMatch compares what has a name: a header, or a claim of a token. Of
// several values of a claim one is enough. Several values of a header have to
// agree, also with all of them as one value: where one compares and another does
// not, servers read different things, and the answer is Unknown.
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
	// External, when set, is asked; the rule matches when it agrees. For an allow
	// rule only, and only when all else matches.
	External *External
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

// String is for people, of a Token inside of something that is printed.
func (t *Token) String() string { return printed(t) }

// String is for people, of an External inside of something that is printed.
func (e *External) String() string { return printed(e) }

func printed[T any](v *T) string {
	if v == nil {
		return "<nil>"
	}
	return fmt.Sprintf("%+v", *v)
}

// External is a service that is asked about a request, in the ext_authz protocol
// of Envoy (envoy.service.auth.v3.Authorization).
type External struct {
	// Cluster, a key of Snapshot.Clusters, that the Workload's own Network reaches.
	Cluster string
	// Timeout in milliseconds.
	Timeout uint32
	// Status that a caller gets when there is no answer, 400 to 599.
	Status uint16
	// Open: no answer counts as agreement.
	Open bool
}

// Answer to a question about a request.
type Answer uint8

// Answers. What is Unknown counts as matched for deny, as not matched for all
// else: it closes.
const (
	No Answer = iota
	Yes
	Unknown
)

// Request is what is decided about, as the endpoint gets it. Its bytes belong to
// whoever holds the request; deciding changes and keeps none of them.
type Request struct {
	Method []byte
	// Path in its normal form, without query. Empty for CONNECT, * for OPTIONS *.
	Path []byte
	// Host in lower case, without port and without a full stop at the end.
	Host []byte
	// GRPC: it is a gRPC call, of Path.
	GRPC bool
	// Fields in order, names in lower case.
	Fields []Field
	// Witness knows what a head alone does not say; nil: all of that is Unknown.
	Witness Witness
}

// Field is one header field line.
type Field struct{ Name, Value []byte }

// Witness answers what it takes more than a head to know. It may be asked the
// same twice, and remembers.
type Witness interface {
	// Token says whether the request bears a token of that issuer for one of those
	// audiences which is valid now. Unknown: it bears one of which that cannot be
	// said, because keys are missing, it cannot be verified or has ended.
	Token(*Token) Answer
	// Claim gives the values of a claim of the token for which Token said Yes.
	Claim(t *Token, name string) []string
	// External asks the service. Unknown: it did not answer and is not Open.
	External(*External) Answer
}
