// Package check looks whether this machine can run Moiré: privileges, ports,
// clock, file systems, limits, the other binaries.
//
// In: where things are to live. Out: one Result for each question, each with an
// id, and where it failed with the cause and the fix. It changes nothing on the
// machine, and asks the kernel about eBPF only through moire-node, which links
// what is needed for that.
package check
