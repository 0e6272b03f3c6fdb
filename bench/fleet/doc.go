// Command fleet measures what one change of intent costs the control plane and
// how long it takes to every node that needs it: 100 simulated nodes (real
// discovery clients over mutual TLS, no kernel), services, endpoints and
// Policies of many Networks under churn, against a plain full push of the same
// objects over the same transport, which compiles everything anew and sends
// everything to everybody.
//
// In: nothing; it starts itself again as server and as nodes, each a process of
// its own, so that CPU and memory of the server are its own. Out: a Markdown
// table on stdout, progress on stderr.
package main
