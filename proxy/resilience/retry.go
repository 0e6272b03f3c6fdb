package resilience

import (
	"strconv"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// Failure is why there is no answer of an endpoint.
type Failure uint8

// Failures. Answered is none: there is an answer, whose status counts.
const (
	Answered Failure = iota
	// NotConnected: no connection, no TLS, or no stream on it.
	NotConnected
	// Refused: the peer says that it did not begin (REFUSED_STREAM, or a GOAWAY
	// below the stream; RFC 9113 8.7). Always safe to send again.
	Refused
	// Reset: the stream or connection ended before the head of the answer.
	Reset
	// TimedOut: no head of an answer within the time of one try.
	TimedOut
)

// Try is how one try ended.
type Try struct {
	Failure Failure
	Status  int // of the answer
	GRPC    int // grpc-status of a trailers-only answer; -1: not known
	// Sent: some byte of the request went out on a connection.
	Sent bool
	// BodyKept: all of the request's body that was read so far is still at hand.
	BodyKept bool
	// Begun: some byte of an answer went to the caller.
	Begun bool
}

const (
	firstStatus, lastStatus = 100, 599
	// steepest is the largest backoff in terms of the first, as in Envoy.
	steepest = 10
)

// Retry is l7.Retry worked out; immutable.
type Retry struct {
	codes   [(lastStatus - firstStatus + 64) / 64]uint64
	grpc    uint32
	anyGRPC bool // the codes were chosen for gRPC: its calls may be sent again
	methods []string
	// Attempts after the first.
	Attempts int
	// Backoff before the first of them, nanoseconds.
	Backoff int64
	// Body is how many bytes of a request are kept.
	Body int
}

// NewRetry works a rule's Retry out; nil gives nil, which never tries again.
func NewRetry(c *l7.Retry) *Retry {
	if c == nil {
		return nil
	}
	r := &Retry{
		methods: append([]string{"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"}, c.Methods...),
		anyGRPC: len(c.GRPC) > 0, Attempts: 1, Backoff: int64(c.Backoff.Or(25 * time.Millisecond)), Body: 64 << 10,
	}
	if c.Attempts != 0 {
		r.Attempts = max(0, c.Attempts)
	}
	if c.Body != 0 {
		r.Body = max(0, c.Body)
	}
	codes, grpc := c.Codes, c.GRPC
	if codes == nil {
		codes = []int{502, 503, 504}
	}
	if grpc == nil {
		grpc = []int{14}
	}
	for _, code := range codes {
		if code >= firstStatus && code <= lastStatus {
			r.codes[(code-firstStatus)/64] |= 1 << ((code - firstStatus) % 64)
		}
	}
	for _, code := range grpc {
		if code > 0 && code < 32 {
			r.grpc |= 1 << code
		}
	}
	return r
}

// Idempotent says whether a request with this method may be sent twice.
func (r *Retry) Idempotent(method []byte) bool {
	if r == nil {
		return false
	}
	for _, m := range r.methods {
		if string(method) == m {
			return true
		}
	}
	return false
}

// Retriable says whether a request may be sent again after t. It is when the
// endpoint did not begin with it: never sent, or refused. Else only when the
// method is idempotent, and it was cut off, was too slow, or was answered with
// one of the codes. A gRPC call, always POST, counts as idempotent for the
// answers that the rule lists in grpc, but not for those of the default list.
// Never without its body, never after the caller has some of an answer.
func (r *Retry) Retriable(method []byte, t Try) bool {
	if r == nil || t.Begun || !t.BodyKept {
		return false
	}
	switch t.Failure {
	case NotConnected, Refused:
		return true
	case Reset:
		return !t.Sent || r.Idempotent(method)
	case TimedOut:
		return r.Idempotent(method)
	}
	if t.GRPC > 0 && t.GRPC < 32 && r.grpc&(1<<t.GRPC) != 0 {
		return r.anyGRPC || r.Idempotent(method)
	}
	return r.code(t.Status) && r.Idempotent(method)
}

func (r *Retry) code(status int) bool {
	if status < firstStatus || status > lastStatus {
		return false
	}
	return r.codes[(status-firstStatus)/64]&(1<<((status-firstStatus)%64)) != 0
}

// longestWait bounds what a Retry-After is honoured with; who asks for more
// gets no retry of us, and the caller gets the answer.
const longestWait = int64(5 * time.Second)

// Wait is how long to wait before the retry number n (1 is the first), in
// nanoseconds: a random time up to Backoff doubled with each retry, ten times
// Backoff at most (full jitter), and no less than after, what the answer's
// Retry-After says (0: nothing). False: the deadline (0: none) comes first, or
// after is too long, or there were enough tries.
func (r *Retry) Wait(n int, rnd uint64, now, deadline, after int64) (int64, bool) {
	if r == nil || n > r.Attempts || after > longestWait {
		return 0, false
	}
	most := steepest * r.Backoff
	if n <= 4 {
		most = min(most, r.Backoff<<(n-1))
	}
	wait := max(after, int64(upTo(rnd, uint64(max(most, 0)))))
	return wait, deadline == 0 || now+wait < deadline
}

// upTo is a number from 0 to n from 64 random bits.
func upTo(rnd, n uint64) uint64 {
	if n == 0 {
		return 0
	}
	return rnd % (n + 1)
}

// RetryAfter reads the value of a Retry-After field (RFC 9110 10.2.3), seconds
// or a date, into nanoseconds from now; wall is the time of day. False: it is
// neither.
func RetryAfter(value []byte, wall time.Time) (int64, bool) {
	if len(value) == 0 || len(value) > 40 {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(string(value), 10, 31); err == nil {
		return int64(seconds) * int64(time.Second), true
	}
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", "Monday, 02-Jan-06 15:04:05 GMT", time.ANSIC} {
		if at, err := time.Parse(layout, string(value)); err == nil {
			return max(0, int64(at.Sub(wall))), true
		}
	}
	return 0, false
}
