// Package run runs a command as a Workload: in a network namespace of its own
// that the agent of this node attaches, for as long as the command lives.
//
// In: a command, a terminal or pipes, signals. Out: the exit code of the
// command. When this process is killed, the kernel kills the command, and the
// agent detaches the Workload and removes the namespace.
// It never isolates anything but the network, and never talks to the control
// plane.
package run
