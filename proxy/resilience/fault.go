package resilience

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// Fault is l7.Fault worked out; immutable.
type Fault struct {
	delay            int64
	delayed, aborted uint64 // of 2^32
	status, grpc     int
	headers          []condition
}

type condition struct {
	name  string
	value string
	regex *regexp.Regexp
}

// Injected is what is done to a request on purpose. The zero Injected is nothing.
type Injected struct {
	Delay int64 // nanoseconds, before all else
	// Abort: answer with Status, or in gRPC with GRPC, without an endpoint.
	Abort        bool
	Status, GRPC int
}

// NewFault works a rule's Fault out; nil gives nil, which does nothing.
func NewFault(c *l7.Fault) (*Fault, error) {
	if c == nil {
		return nil, nil
	}
	f := &Fault{
		delay: max(0, int64(time.Duration(c.Delay))), delayed: share(c.DelayPercent),
		status: c.Abort, grpc: c.AbortGRPC,
	}
	if c.Abort != 0 || c.AbortGRPC != 0 {
		f.aborted = share(c.AbortPercent)
	}
	for _, h := range c.Headers {
		k := condition{name: strings.ToLower(h.Name), value: h.Value}
		if h.Kind == l7.Regex {
			re, err := regexp.Compile("^(?:" + h.Value + ")$")
			if err != nil {
				return nil, fmt.Errorf("fault.headers %s: %w", h.Name, err)
			}
			k.regex = re
		}
		f.headers = append(f.headers, k)
	}
	return f, nil
}

func share(percent float64) uint64 {
	return uint64(max(0, min(percent, 100)) / 100 * (1 << 32))
}

// Inject decides for one request, by 64 random bits.
func (f *Fault) Inject(head *message.Head, rnd uint64) Injected {
	if f == nil || !f.meant(head) {
		return Injected{}
	}
	var in Injected
	if rnd&(1<<32-1) < f.delayed {
		in.Delay = f.delay
	}
	if rnd>>32 < f.aborted {
		in.Abort, in.Status, in.GRPC = true, f.status, f.grpc
	}
	return in
}

func (f *Fault) meant(head *message.Head) bool {
	for i := range f.headers {
		c := &f.headers[i]
		got, ok := head.Lookup(c.name)
		if !ok || c.regex == nil && string(got) != c.value || c.regex != nil && !c.regex.Match(got) {
			return false
		}
	}
	return true
}
