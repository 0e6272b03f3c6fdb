// Package proxies has the proxies of a node: one for all, one for each project
// or one for each Workload, whichever way with the same configuration.
//
// In: the snapshot in force, which interfaces a proxy speaks for, with the
// sockets that were made for it, and their certificates. Out: processes that
// serve that (node/keep, proxy/door), whether they do, why one refuses, which
// endpoints they have put aside, and their records.
// It starts what is needed and ends what nobody needs for a while; when Run ends
// the processes go on. It never touches the kernel's tables, and never waits for a
// proxy: who asks too early is told so.
package proxies
