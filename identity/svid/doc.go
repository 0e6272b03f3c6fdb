// Package svid keeps the identities of the Workloads of one node: keys, which
// never leave it, and the SVIDs for them.
//
// In: who is attached here, and an Authority that certifies. Out: Set, which
// holds an SVID for each identity that somebody needs, replaced as a whole when
// one is renewed; JWT-SVIDs on demand. What was there when the node stopped is
// there again, so a node without a control plane goes on with what it had.
// It never decides who may have an identity, and never logs a key or a token.
package svid
