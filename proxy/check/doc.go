// Package check asks endpoints whether they are well: over HTTP, with gRPC's
// health protocol (grpc.health.v1), or by a TCP connection.
//
// In: a Check of the configuration, addresses, a tls.Config. Out: for each
// endpoint, whenever it changes, whether it is well and why. It runs on ordinary
// goroutines beside the workers, and makes a new connection for each question,
// so that a listener that is gone is noticed.
//
// It never decides what is done with an endpoint that is not well.
package check
