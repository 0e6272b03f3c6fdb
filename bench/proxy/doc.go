// Command proxy measures moire-proxy and its peers (HAProxy, nginx, Envoy) on
// the same work in one interleaved run: requests and handshakes per second of
// the proxy's CPU, latency that the proxy adds at a fixed rate, memory.
//
// In: the proxies' binaries, h2load, taskset; peers/ holds their configurations
// as templates, each as somebody who knows that proxy would write it. Every
// proxy runs on core 0 with all its threads; load and upstream share core 1.
// Upstream (HTTP/1.1, HTTP/2, gRPC) and load makers are this same program,
// started again, so that each is a process whose CPU can be read.
// Out: Markdown tables for bench/RESULTS.md on stdout, progress on stderr.
//
// What is compared is CPU per request, not throughput, so it does not matter
// that load and upstream may need more of their core than the proxy of its own;
// where they were out of it a cell is marked. Latency under such a mark means
// nothing. It never sends anything elsewhere than to 127.0.0.1, and it ends
// what it started by process id.
package main
