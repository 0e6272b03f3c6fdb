package run

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Enter becomes the command inside a network namespace that is there already,
// and returns only when that cannot be; code is then what a shell would return.
// resolv, when not empty, is what the command finds in /etc/resolv.conf, and
// workloadAPI where it gets its identity.
func Enter(netns, resolv, workloadAPI string, command []string) (code int, err error) {
	path, code, err := find(command)
	if err != nil {
		return code, err
	}
	// The namespaces are those of this thread, and what is executed keeps them.
	runtime.LockOSThread()
	f, err := os.Open(netns)
	if err != nil {
		return 1, fmt.Errorf("the namespace of the workload is not there: %w", err)
	}
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return 1, fmt.Errorf("enter the namespace of the workload: %w; this needs root, use sudo", err)
	}
	if resolv != "" {
		if err := showResolv(resolv); err != nil {
			return 1, err
		}
	}
	err = syscall.Exec(path, command, withWorkloadAPI(os.Environ(), workloadAPI))
	return CodeNotExecutable, fmt.Errorf("%s cannot be executed: %w", path, err)
}
