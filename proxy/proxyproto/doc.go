// Package proxyproto is the PROXY protocol, versions 1 and 2 (HAProxy's
// proxy-protocol.txt): who a connection really comes from and goes to, told in
// front of its first byte.
//
// In: the first bytes of a connection, or two addresses. Out: a Header and how
// many bytes it had, or bytes to send.
// It never reads a socket, and never guesses: who expects a header gets one or
// an error. Version 2 and all writing allocate nothing.
package proxyproto
