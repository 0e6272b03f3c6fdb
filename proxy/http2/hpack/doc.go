// Package hpack is HPACK, the header compression of HTTP/2 (RFC 7541): one
// Decoder and one Encoder for each connection.
//
// In: header blocks, and fields with the known names of proxy/message. Out:
// fields one by one with the verdict whether name and value are legal in
// HTTP/2, and header blocks. Nothing allocates once the tables and the caller's
// buffers are warm; the dynamic tables take memory only as they fill.
// It never judges what a field means, and it never limits a whole head: its
// caller counts while it pulls fields out.
package hpack
