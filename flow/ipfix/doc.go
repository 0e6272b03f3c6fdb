// Package ipfix sends flow records to a collector as IPFIX (RFC 7011), both
// directions of a session in one data record (RFC 5103).
//
// In: records. Out: IPFIX messages over UDP or TCP: templates for IPv4 and
// IPv6, repeated every minute over UDP, and one data record for each Update,
// Ended and Denied, with what was counted since the record before. Strings name
// the Networks, the identity of the source, the Service and the rule, so that a
// collector shows who and why, not only addresses.
// It never holds anybody up: what a slow or missing collector does not take is
// dropped and counted.
package ipfix
