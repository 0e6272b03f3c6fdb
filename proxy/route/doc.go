// Package route decides where a request or a connection goes, and changes the
// heads that pass.
//
// In: an l7.Config, once (Build); then heads, random numbers and memory of the
// caller. Out: an immutable Table; the Rule of a request (Match, MatchTLS,
// MatchTCP) with its filters, timeouts and backends compiled and numbered;
// heads that were changed by filters; keys for hashing and rate limits.
// It is pure: no clock, no randomness of its own, no I/O, no lock, and once
// warm no allocation. It never opens a connection, never picks an endpoint and
// never decides on a path other than the one that the back end receives.
// The semantics are those of the Gateway API; what that leaves open is decided
// in DESIGN.md.
package route
