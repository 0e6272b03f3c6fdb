package store

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

const (
	// worldDigits is the length of the world's part of a resourceVersion.
	worldDigits = 16
	// worldStep is by how much revisions of the world grow. The last three
	// digits are drawn when the process starts: a revision that another process
	// gave out is recognised by them, and never resumed from.
	worldStep = 1000
)

// firstRevision is where the world of this process starts. It is later than
// all revisions of an earlier process, which cannot have made one each
// millisecond.
func firstRevision() int64 {
	return time.Now().UnixMilli()*worldStep + rand.Int64N(worldStep)
}

// joinVersion makes the resourceVersion of something that has an intent and a
// world side: the decimal number of the intent followed by that of the world
// in sixteen digits. Like every resourceVersion it is opaque to clients; that
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
