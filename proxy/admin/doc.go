// Package admin is the door for the administrator of one proxy: HTTP on a unix
// socket that only the proxy's user may open.
//
// In: requests on the socket, and what a Proxy and its Telemetry say of
// themselves. Out: text for people, and JSON of the same where it is asked for
// (?format=json). It changes nothing but the log's level, and asks for a drain,
// both by POST only. Private keys never leave it, whatever field they are in. It
// is never near the path of a request, and a slow reader holds up nobody.
package admin
