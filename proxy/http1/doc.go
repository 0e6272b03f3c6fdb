// Package http1 is the HTTP/1 codec (RFC 9112): bytes to a message.Head and
// back, and chunked bodies.
//
// In: the bytes of exactly one head (HeadEnd finds its end), owned by the
// caller, who may see names changed to lower case in place; bytes of a chunked
// body as they come. Out: a Head whose slices point into those bytes, an *Error
// with the status to answer, or bytes appended to a buffer of the caller.
// What two readers could understand in two ways is an error, never repaired:
// after an error the connection has to be closed.
// It never reads or writes a socket, never allocates on the common path, never
// decides where a request goes, and never waits: who has too few bytes is told so.
package http1
