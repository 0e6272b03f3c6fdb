// Package resilience decides how much may be under way, what is tried again,
// and when to give up: circuit limits, retry budgets, retries, backoff, hedging,
// deadlines, local rate limits, faults on purpose.
//
// In: words of the configuration, the time, random numbers, how a try ended.
// Out: yes or no, a time to wait, facts for an answer. What is counted for the
// whole proxy (Circuit, Limiter) is in atomics that all workers share; the rest
// are plain values.
//
// It never reads a clock, makes a random number, sleeps, sends, starts a
// goroutine or logs.
package resilience
