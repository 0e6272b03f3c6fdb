// Package mesh makes the configuration of one proxy out of what its node must
// be: pure, and the same for the same input.
//
// In: the snapshot in force, with addresses in the place of names, the
// interfaces that the proxy speaks for, and their certificates. Out: an
// l7.Config with Mesh; what did not change is the very slice of last time. It
// also says which interfaces need a proxy, and which part of a Config can never
// be served, so that one tenant's mistake is not everybody's.
// It never talks to a proxy, and never adds what the snapshot does not say: who
// is not in it is unknown, and unknown is closed.
package mesh
