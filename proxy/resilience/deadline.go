package resilience

import (
	"math"
	"strconv"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// Deadlines of one rule; immutable. Zero: none.
type Deadlines struct {
	Request, Backend int64 // nanoseconds
}

// NewDeadlines are those of a rule's Timeouts.
func NewDeadlines(c l7.Timeouts) Deadlines {
	return Deadlines{max(0, int64(time.Duration(c.Request))), max(0, int64(time.Duration(c.Backend)))}
}

// Whole is when a request that began at now has to be answered, all tries
// together: the rule's request timeout or the caller's own (grpc-timeout,
// nanoseconds, 0: none), whichever is first. 0: never.
func (d Deadlines) Whole(now, callers int64) int64 {
	return Sooner(after(now, d.Request), after(now, callers))
}

// Try is when a try that begins at now has to be answered: within the backend
// timeout and before the whole request's deadline. 0: never.
func (d Deadlines) Try(now, whole int64) int64 { return Sooner(after(now, d.Backend), whole) }

func after(now, d int64) int64 {
	if d <= 0 {
		return 0
	}
	if d > math.MaxInt64-now {
		return 0
	}
	return now + d
}

// Sooner of two deadlines, of which 0 is none.
func Sooner(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// units of a grpc-timeout, the coarsest first.
var units = [...]struct {
	letter byte
	size   int64
}{
	{'H', int64(time.Hour)}, {'M', int64(time.Minute)}, {'S', int64(time.Second)},
	{'m', int64(time.Millisecond)}, {'u', int64(time.Microsecond)}, {'n', 1},
}

// ParseGRPCTimeout reads a grpc-timeout: one to eight digits and a unit of H, M,
// S, m, u, n. The result is in nanoseconds, at most some 292 years. False: it is
// malformed, and the call is answered with INTERNAL, as gRPC's servers do.
func ParseGRPCTimeout(value []byte) (int64, bool) {
	n := len(value) - 1
	if n < 1 || n > 8 {
		return 0, false
	}
	count := int64(0)
	for _, c := range value[:n] {
		if c < '0' || c > '9' {
			return 0, false
		}
		count = count*10 + int64(c-'0')
	}
	for _, u := range units {
		if u.letter == value[n] {
			if count > math.MaxInt64/u.size {
				return math.MaxInt64, true
			}
			return count * u.size, true
		}
	}
	return 0, false
}

// AppendGRPCTimeout writes what is left of a deadline as a grpc-timeout, in the
// finest unit that holds it, rounded down: the endpoint never gets more than
// there is. Nothing left is 1n, since there is no zero to send.
func AppendGRPCTimeout(dst []byte, left int64) []byte {
	left = max(left, 1)
	for i := len(units) - 1; i >= 0; i-- {
		if count := left / units[i].size; count < 1e8 {
			return append(strconv.AppendInt(dst, count, 10), units[i].letter)
		}
	}
	return append(dst, "99999999H"...)
}
