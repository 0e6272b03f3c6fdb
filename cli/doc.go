// Package cli is the door for people: the moire command.
//
// In: arguments, files, a kubeconfig, the sockets of local nodes. Out: data on
// standard output, progress and errors on standard error, and an exit code
// (see cli/fault). It decides nothing of its own: the API server, the node
// agents and explain do.
package cli
