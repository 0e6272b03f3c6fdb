// Package tls is what the proxy needs of TLS around crypto/tls: which
// certificate to show, whom to believe, what a ClientHello asks for before
// anybody answers it, and crypto/tls on a connection that never blocks.
//
// In: certificates and CA bundles as PEM or as files, snapshot/l7's ServerTLS
// and ClientTLS, bytes of a wire. Out: Store and Chooser (certificates, replaced
// at run time), ServerConfig and Client (configurations for crypto/tls),
// Verified (peers whose chain was checked before), PeekHello, Filter (one TLS
// connection over memory).
// It never touches a socket, never starts a goroutine, never logs, and never
// lets key material into an error. Files are read only when the owner says so.
package tls
