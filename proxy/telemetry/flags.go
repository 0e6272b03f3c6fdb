package telemetry

import "math/bits"

// Flags say what was special about an exchange: why the proxy answered itself,
// or why an answer is not whole. Their short names are Envoy's.
type Flags uint32

// Flags of an exchange.
const (
	NoHealthyUpstream     Flags = 1 << iota // UH: no endpoint takes requests
	UpstreamFailed                          // UF: no connection to the endpoint
	UpstreamOverflow                        // UO: a circuit limit
	UpstreamTimeout                         // UT: the request's timeout
	UpstreamReset                           // UR: the endpoint reset the stream
	UpstreamClosed                          // UC: the endpoint closed the connection
	UpstreamProtocolError                   // UPE: the endpoint's answer cannot be read
	RetriesExhausted                        // URX: failed after the last retry that is allowed
	NoRoute                                 // NR: no route matches
	NoCluster                               // NC: the route's cluster is not there
	CallerClosed                            // DC: the caller closed the connection
	CallerReset                             // DR: the caller reset the stream
	CallerProtocolError                     // DPE: the request cannot be read
	LocalReset                              // LR: the proxy reset the stream
	RateLimited                             // RL
	FaultInjected                           // FI: an abort on purpose
	DelayInjected                           // DI: a delay on purpose
	Denied                                  // UAEX: not allowed
	StreamIdle                              // SI: nothing moved for too long
	Duration                                // DT: the connection was open for too long
	Overload                                // OM: the proxy protects itself
	InvalidHeaders                          // IH: a strictly checked field is wrong
	lastFlag              = iota
)

var flagNames = [lastFlag]string{"UH", "UF", "UO", "UT", "UR", "UC", "UPE", "URX", "NR", "NC", "DC", "DR", "DPE", "LR",
	"RL", "FI", "DI", "UAEX", "SI", "DT", "OM", "IH"}

// Names are the short names of all that are set, nil when none is.
func (f Flags) Names() []string {
	var out []string
	for f &= 1<<lastFlag - 1; f != 0; f &= f - 1 {
		out = append(out, flagNames[bits.TrailingZeros32(uint32(f))])
	}
	return out
}

// appendFlags writes the short names with commas between; "-" when none is set.
func appendFlags(dst []byte, f Flags) []byte {
	f &= 1<<lastFlag - 1
	if f == 0 {
		return append(dst, '-')
	}
	for first := true; f != 0; f &= f - 1 {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, flagNames[bits.TrailingZeros32(uint32(f))]...)
	}
	return dst
}

// String is what the access log shows.
func (f Flags) String() string { return string(appendFlags(nil, f)) }
