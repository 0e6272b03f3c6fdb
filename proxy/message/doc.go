// Package message holds the words of the proxy's rooms: one head of a request
// or an answer (Head) as it is after a codec read it and before another writes
// it, independent of the wire format.
//
// In: nothing. Out: Head, Field, known field names, Framing. All []byte in a
// Head point into memory that its owner keeps alive; nothing is copied here
// unless a docstring says so, and nothing allocates once a Head is warm.
// It never parses a wire format, and never decides where a request goes.
package message
