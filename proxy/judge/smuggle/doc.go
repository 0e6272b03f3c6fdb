// Package smuggle holds a corpus of requests that two servers may understand
// in two ways, and sees whether a proxy and the back end behind it did.
//
// In: the address of the proxy, a Tap between it and a back end, a Case. Out: a
// Finding. The proxy is told to write a secret field (Stamp) into every request
// that it forwards. So a request that the back end saw without it is one that
// the proxy did not see: the two are out of step, whatever each of them thinks.
// Answers are counted against stamps, and after every Case marked requests, on
// the same connection and on a new one, must get their own answers.
// The corpus is a pure table; it never opens a connection.
package smuggle
