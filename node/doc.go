// Package node is moire-node put together: it takes the snapshot that says what
// this node must be, attaches Workloads, makes the kernel match (grow forward,
// shrink backward) and reports what it has.
//
// In: snapshots from the control plane or, when that is away, the last good one
// from disk; attach and detach requests over the unix socket; ends of
// processes. Out: the state that each applier gets, reports, acknowledgements,
// records. One loop owns all of it; see DESIGN.md.
// It never decides about a packet, never talks to the API server, and never
// opens what it does not understand: unknown stays closed.
package node
