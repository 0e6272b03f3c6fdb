// Command bench measures Moiré and its peers on the same work in one
// interleaved run, and prints a table of ratios (medians) for RESULTS.md.
//
// In: root, iperf3, nft, binaries built by `make build`. Out: a Markdown table
// on stdout, progress on stderr. Absolute times on a shared machine mean
// nothing; only ratios between paths of the same round do. It makes network
// namespaces named moire-b-*, sends traffic only inside them and removes them.
package main
