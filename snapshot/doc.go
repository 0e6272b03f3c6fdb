// Package snapshot holds the words between control plane and node: what one
// node must be (Snapshot) and what a node says of itself (Report).
//
// In: nothing; these are plain values. Out: typed tables keyed by (network id,
// address), Diff, Dump and Version. A Snapshot is immutable, complete and
// comparable: whoever holds one may read it for ever without a lock.
// It never talks, waits, logs or decides; the decision code that compile,
// explain, datapath and proxy share is in snapshot/policy, the protobuf form
// in snapshot/wire.
package snapshot
