// Package datapath makes the kernel match the snapshot: tables, programs,
// links, interfaces.
//
// In: a State (snapshot and the interfaces that are here), and Plug and Unplug
// for the interfaces themselves. Out: records of what happened, counters of
// what was dropped, Dump, Probe and Judge (what the program in the kernel says
// about a packet). It never decides who may talk to whom: that is in the policy
// sets of the snapshot; it never gives out addresses and never talks to the
// control plane. Everything is pinned and goes on without the agent.
// DESIGN.md has the invariants.
package datapath
