// Package manifest reads the files that people apply and remembers where each
// field stands.
//
// In: paths, or standard input. Out: objects as they will be sent, with file
// and line of every field, so that the server's objections can be shown where
// they arise. It judges nothing: api/load and the server do.
package manifest
