// Package api carries what is generated from the Go types of api/v1alpha1 into
// the binaries that need it.
//
// In: the CRD files in api/crd, written by `make gen`. Out: their bytes.
// It never parses them and talks to no server.
package api
