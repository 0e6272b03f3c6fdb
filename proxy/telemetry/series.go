package telemetry

// RouteCounter counts what happens to requests of a rule beside its answers.
type RouteCounter uint8

// Counters of a rule.
const (
	Limited     RouteCounter = iota // refused by a rate limit
	FaultAborts                     // answered by a fault
	FaultDelays                     // held up by a fault
	Mirrored                        // copies sent
	Hedged                          // second tries that did not wait for the first
	lastRouteCounter
)

// ClusterCounter counts what happens between the proxy and a cluster.
type ClusterCounter uint8

// Counters of a cluster.
const (
	ConnectFailures ClusterCounter = iota
	ConnectTimeouts
	UpstreamHandshakes    // TLS handshakes that were done
	UpstreamTLSFailures   // TLS handshakes that failed
	Retried               // tries after the first
	RetriesRefused        // by budget or circuit
	Ejections             // endpoints put aside by outlier detection
	OverflowConnections   // circuit: connections
	OverflowPending       // circuit: waiting for a connection
	OverflowRequests      // circuit: requests
	ChecksFailed          // active health checks
	Panics                // choices made among all endpoints, healthy or not
	UpstreamBytesSent     // of bodies
	UpstreamBytesReceived // of bodies
	lastClusterCounter
)

// ListenerCounter counts what happens between callers and the proxy.
type ListenerCounter uint8

// Counters of a listener.
const (
	Refused       ListenerCounter = iota // connections beyond a limit
	Handshakes                           // TLS handshakes that were done
	Resumptions                          // of these, resumed sessions
	TLSFailures                          // TLS handshakes that failed
	Malformed                            // requests or connections that cannot be read
	SlowCallers                          // cut off for being too slow
	BytesReceived                        // on the wire, above TLS
	BytesSent                            // on the wire, above TLS
	lastListenerCounter
)

const (
	classes  = 6  // no answer, 1xx to 5xx
	statuses = 18 // gRPC 0 to 16, and all that are not known
)

func classOf(status int) int {
	if c := status / 100; uint(c) < classes {
		return c
	}
	return 0
}

// routeSeries is what one worker counted for one rule.
type routeSeries struct {
	started  counter
	class    [classes]counter
	duration histogram
	in, out  counter
	flags    [lastFlag]counter
	grpc     [statuses]counter
	counts   [lastRouteCounter]counter
}

// clusterSeries is what one worker counted for one cluster.
type clusterSeries struct {
	started        counter
	class          [classes]counter
	duration       histogram
	opened, closed counter
	counts         [lastClusterCounter]counter
}

// listenerSeries is what one worker counted for one listener.
type listenerSeries struct {
	opened, closed counter
	counts         [lastListenerCounter]counter
	drops          [lastDrop]counter
}
