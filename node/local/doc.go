// Package local is how programs on a node talk to its agent: the requests and
// answers, and a client that speaks them as HTTP and JSON over the agent's
// unix socket (<run dir>/<node>.sock, root only).
//
// In: what to attach or detach, and questions. Out: addresses, status, records.
// It never imports the agent, gRPC or the kernel side, so that small programs
// (the command line, a CNI plugin) stay small.
package local
