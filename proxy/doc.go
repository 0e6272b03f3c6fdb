// Package proxy is the L7 data plane put together: connections, exchanges,
// pools, one worker for each core.
//
// In: an l7.Config (New, Apply; Serve, with the sockets of a mesh), sockets of callers. Out: their requests,
// routed, balanced, retried and answered; records and counters through
// proxy/telemetry. A configuration is built beside the one that runs, switched,
// and the old one drained; one that cannot be built changes nothing.
//
// In the order of a request: accept.go (a connection, its PROXY header, TLS and
// protocol), down1.go and down2.go (heads of requests), exchange.go (what
// happens to one, as straight-line code), decide.go (route, limits, filters),
// forward.go and attempt.go (tries at endpoints), up.go (connections to them),
// answer.go and stream.go (the answer and both bodies), reply.go (what is
// answered without an endpoint). tunnel.go passes TCP and TLS through unread.
//
// In tenant networks: meshed.go (what of it is in a plan), home.go (sockets in
// namespaces), flow.go, arrive.go, unrouted.go (a connection, and requests that no
// route takes), target.go (who is at an endpoint, what both Sets say, crossing in
// memory), gate.go (what comes to a Gateway), upmesh.go (connections for Workloads), ask.go (services that decide).
//
// It never decides about a request by anything else than what the endpoint
// receives, and never passes one on whose meaning is in doubt.
package proxy
