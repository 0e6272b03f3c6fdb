// Command judge lets outside judges and attackers loose on the proxy: h2spec,
// gRPC's interop suite, testssl.sh, WebSocket clients, curl, slowhttptest, a
// corpus of smuggled requests in front of five back ends, and floods of our own.
//
// In: what proxy/judge/install installed, and a binary of the proxy; -proxy
// nginx, haproxy or envoy puts a peer in its place. Out: one line for each
// judge (cases, passed, exceptions with their reasons, failures); exit 1 when
// a case failed that is no written exception. `attack` writes a table for
// bench/RESULTS.md, `fuzz` runs every native fuzz target of the proxy.
// It never changes a judge, sends traffic only over loopback, and every loop of
// it ends by count or by time.
package main
