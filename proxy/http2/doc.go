// Package http2 is HTTP/2 (RFC 9113) as a value: frames, header compression
// (package hpack) and the state of one connection, for both roles. A server
// Conn is the side that accepted, a client Conn the side that connected.
//
// In: bytes from the peer (Next), heads, data and trailers to send, and the
// time. Out: events, bytes for the peer (Out), and heads as message.Head,
// validated at least as strictly as HTTP/1, so that they may be converted.
// It never does I/O, never waits, never reads a clock, and is not safe for
// concurrent use: a connection belongs to one worker.
package http2
