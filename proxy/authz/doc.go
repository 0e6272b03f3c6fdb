// Package authz decides about one request, on exactly what the endpoint gets:
// with the decision code of snapshot/policy, with verified JSON Web Tokens, and
// with services that are asked in Envoy's ext_authz protocol.
//
// In: a Set made ready, who calls, a message.Head as it will be sent on, the JWK
// sets of the configuration (Keys). Out: a Verdict with its rule id; of a
// request that is denied what its caller is told, of one that an outside service
// let in what that service wants changed.
//
// Signatures are verified apart from the loop and remembered (Memory); who holds
// the request (Holder) does the waiting and carries questions to services. It
// opens no connection, fetches no key, and lets nobody in because something is
// missing: a token that cannot be verified and a service that does not answer
// are Unknown, which closes.
package authz
