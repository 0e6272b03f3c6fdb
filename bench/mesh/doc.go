// Command mesh measures Moiré's mesh through the whole system: from a client
// process to a server process, each in a namespace of its own, with moired,
// agents, proxies, strict mutual TLS, an HTTPRoute, rules about requests, metrics
// and records; against the same two processes without a proxy, and with a pair of
// stock Envoys between them that speak mutual TLS and have the same routes.
//
// In: root, two cores, the binaries of `make build`, bench, bench-proxy and Envoy.
// Load makers and upstream are those of bench/proxy, round trips those of bench.
// Out: Markdown tables for bench/RESULTS.md on stdout, progress on stderr. It
// makes a lab (namespaces moire-m-*), sends traffic only inside of it, and removes
// it. Proxies of either kind have one worker each and share core 0; all else,
// agents and control plane included, is on core 1.
package main
