package http2

// budget is a token bucket that work gives back to. Time is read only when it
// runs low.
type budget struct {
	tokens int32
	at     int64 // when rate was last added, in nanoseconds
}

func newBudget(burst int32, now int64) budget { return budget{tokens: burst, at: now} }

// take says whether cost was left.
func (b *budget) take(cost, burst, rate int32, now int64) bool {
	if b.tokens < cost {
		elapsed := max(now-b.at, 0)
		earned := int64(burst)
		if elapsed < int64(burst)*1e9 {
			earned = min(earned, elapsed*int64(rate)/1e9)
		}
		if earned > 0 {
			b.tokens = int32(min(int64(b.tokens)+earned, int64(burst)))
			b.at = now
		}
		if b.tokens < cost {
			return false
		}
	}
	b.tokens -= cost
	return true
}

// give returns tokens for work that was done.
func (b *budget) give(n, burst int32) { b.tokens = min(b.tokens+n, burst) }
