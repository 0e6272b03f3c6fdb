// Package compile turns intent and world into one snapshot per node.
//
// In: Input, the facts of this moment. Out: one snapshot.Snapshot per node,
// what has to be allocated first (Needs), what is wrong with the intent
// (Problems) and how Links, Services and FloatingIPs are (Statuses). It is a
// pure function: no clock, no I/O, no goroutine, no history; the same facts in
// any order give the same bytes. A reference to something that is missing has a
// closed result, never an error that stops the rest.
package compile
