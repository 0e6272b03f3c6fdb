// Package l7 holds the words for what one proxy must be: listeners, routes,
// clusters, certificates, limits (Config). It is the L7 part of what a node
// must be, and the whole of what a proxy that stands alone reads from a file.
//
// In: nothing; these are plain values with JSON names. Out: the types, their
// defaults and Validate. A Config is immutable and complete: a proxy builds all
// it needs from it beside what runs, switches, and drains.
// It never reads a file, opens a socket or decides about a request.
package l7
