package l7

import (
	"fmt"
	"time"
)

// Duration is a time.Duration that is written as "1m30s" in JSON. The zero
// Duration stands for the default of its field.
type Duration time.Duration

// Or is d, or otherwise when d is zero. A negative d, which means no limit,
// stays negative.
func (d Duration) Or(otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return time.Duration(d)
}

// MarshalText writes d as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration takes.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write for example 500ms, 10s or 1m30s", text)
	}
	*d = Duration(v)
	return nil
}
