// Package discovery brings snapshots to nodes, and what nodes say back: who
// has which version.
//
// In, upstairs: the wanted snapshot of each node (Publish), from the nodes
// reports, acknowledgements and records. Out: deltas to each node, and to the
// Sink what the nodes said. In, downstairs: deltas, from the node reports,
// acknowledgements and records (Client). Out: whole snapshots to the Handler,
// and the node's certificate (Join, and renewal).
// Everything goes over gRPC with mutual TLS 1.3; who a node is comes from its
// certificate and never from a message. It never looks into a snapshot, never
// keeps one on disk and never decides what a node must be.
package discovery
