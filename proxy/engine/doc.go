// Package engine is what a worker of the proxy stands on: one event loop with
// its sockets, coroutines, timers and buffers.
//
// In: sockets to listen on, addresses to connect to, code to run on coroutines.
// Out: Loop, Conn (a socket with bounded buffers both ways), Task (straight-line
// code that parks and is resumed), Timer. Everything of a Loop belongs to the
// goroutine that runs it; only Post may be called from elsewhere. The common
// path takes no lock and allocates nothing.
// A Loop talks to the kernel through epoll or, where it can, io_uring: DESIGN.md.
// It knows nothing of HTTP, routes or clusters, and never logs.
package engine
