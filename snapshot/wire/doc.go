// Package wire is the protobuf form of the words between control plane and
// node, and the file form of a snapshot.
//
// In: snapshots, deltas, reports and records, or the messages and bytes that
// claim to be one. Out: the other form. Whatever is decoded is checked in full
// (sizes, address lengths, ranges, order, duplicate keys) and errors name the
// row and the field; whatever is encoded decodes to an equal value with an
// equal Version. It never panics on any input, never reads more than its
// limits allow, never talks and never guesses.
package wire
