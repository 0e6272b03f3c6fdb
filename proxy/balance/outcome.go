package balance

// Result is how one try ended, as far as its endpoint is to be judged by it.
type Result uint8

// Results. ConnectFailed, Reset and TimedOut are of local origin: no answer
// came. They count as 503, 503 and 504.
const (
	Success       Result = iota // an answer, not 5xx
	ServerError                 // 5xx but those of Gateway
	Gateway                     // 502, 503, 504
	ConnectFailed               // no connection, or no TLS on it
	Reset                       // the connection or stream ended before the answer
	TimedOut                    // no answer in time
	Canceled                    // the caller went away; nobody is to blame
)

// OfStatus is the Result of an HTTP status.
func OfStatus(status int) Result {
	switch {
	case status < 500:
		return Success
	case status >= 502 && status <= 504:
		return Gateway
	}
	return ServerError
}

// OfGRPC is the Result of a grpc-status: UNKNOWN, UNIMPLEMENTED, INTERNAL and
// DATA_LOSS are errors of the server, UNAVAILABLE and DEADLINE_EXCEEDED those of
// a gateway, as their HTTP counterparts 500, 501, 503 and 504 are.
func OfGRPC(code int) Result {
	switch code {
	case 4, 14:
		return Gateway
	case 2, 12, 13, 15:
		return ServerError
	}
	return Success
}

func (r Result) local() bool { return r >= ConnectFailed && r <= TimedOut }

// Outcome of one try.
type Outcome struct {
	Result Result
	// Latency from Begin to the head of the answer, or to the failure, in
	// nanoseconds. The whole of a long answer would say nothing about its endpoint.
	Latency int64
}

// Reason why an endpoint was ejected.
type Reason uint8

// Reasons. NoReason: nothing happened.
const (
	NoReason Reason = iota
	Consecutive5xx
	ConsecutiveGateway
	SuccessRate
	FailurePercent
	Latency
)

// String as in records and metrics.
func (r Reason) String() string {
	return [...]string{"", "consecutive-5xx", "consecutive-gateway", "success-rate", "failure-percent", "latency"}[r]
}

// Event is an endpoint that was ejected or that came back.
type Event struct {
	Address string
	// Reason of the ejection; NoReason in an Event of nothing.
	Reason Reason
	// Returned: the ejection is over.
	Returned bool
	// Until when it is ejected, in the clock of now; nanoseconds.
	Until int64
	// Times it was ejected since it joined.
	Times uint32
	// Value that was judged (a number in a row, percent, nanoseconds), and the
	// Threshold that it crossed.
	Value, Threshold float64
}
