// Package ipam gives things out and remembers it: numbers (VNIs, identities,
// node numbers), address blocks of a Network, and on a node the addresses and
// MACs of its attachments.
//
// In: Rows (a small transactional table, for Numbers), a Space (what a Network
// declared, for Carve) or a file of its own (for Pool). Out: things that
// nobody else holds, and the same thing again to the same owner.
// It never hands a thing out twice, whatever is killed when; it never returns
// a thing before it is durable; it never reads a clock, asks a network or
// knows what the things are used for.
package ipam
