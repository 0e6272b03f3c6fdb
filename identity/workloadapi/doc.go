// Package workloadapi serves the SPIFFE Workload API on a node: X.509-SVIDs,
// JWT-SVIDs and bundles for the processes of its Workloads, at a unix socket.
//
// In: a Source, which knows who is in a network namespace and has what they may
// have. Out: a gRPC server for any SPIFFE client. A caller is who is attached in
// the network namespace of the process that connected, and nothing that it says
// changes that.
// It never makes an identity, never logs a key or a token, and tells nobody of
// anybody else.
package workloadapi
