// Package control is moired put together: it keeps the API server running,
// listens to what people declare (intent) and to what nodes report (world),
// allocates what is needed, compiles both into one snapshot per node and
// publishes the snapshots. It shows the world through the same API and answers
// what happened (flows) and why (explain).
//
// In: Config. Out: the API on one port, discovery on another, join.json for
// the node on this machine.
// It never publishes a snapshot made of half-loaded facts, never allocates
// without a durable note, and never decides about a packet.
package control
