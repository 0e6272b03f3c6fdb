package store

import "testing"

func TestStart(t *testing.T) {
	t.Logf("ready after %v", shared.startTime)
}
