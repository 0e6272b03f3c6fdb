package store

import (
	"fmt"
	"strconv"
	"strings"
)

// worldDigits is the length of the world's part of a resourceVersion.
const worldDigits = 14

// joinVersion makes the resourceVersion of something that has an intent and a
// world side: the decimal number of the intent followed by that of the world
// in fourteen digits. Like every resourceVersion it is opaque to clients; that
// it is a number that only grows keeps clients right that compare it.
func joinVersion(intent string, world int64) string {
	return fmt.Sprintf("%s%0*d", intent, worldDigits, world)
}

// splitVersion takes apart what joinVersion made. ok is false for a
// resourceVersion that knows nothing of the world; intent is then v itself.
func splitVersion(v string) (intent string, world int64, ok bool) {
	cut := len(v) - worldDigits
	if cut < 1 || strings.Trim(v, "0123456789") != "" {
		return v, 0, false
	}
	world, err := strconv.ParseInt(v[cut:], 10, 64)
	if err != nil {
		return v, 0, false
	}
	return v[:cut], world, true
}
