package datapath

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProbeWithoutRights: who may not try the features is told that, and not
// that the kernel is too old.
func TestProbeWithoutRights(t *testing.T) {
	checks := make(chan []Check, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it what
		// was dropped.
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err := unix.Capset(&hdr, &none[0]); err != nil {
				t.Error(err)
			}
		}
		checks <- Probe()
	}()
	got := <-checks
	if len(got) != 1 || got[0].OK || got[0].Name != "privileges" {
		t.Errorf("%+v", got)
	}
}
