// Package policy is the decision: given the ordered rules of one Workload and
// direction and one packet, which rule or default decides, and how.
//
// In: a Set (selectors already resolved to identity numbers by compile) and a
// Packet. Out: a Verdict with the id of the rule or default, or the whole walk
// as Steps, or the Set flattened to the table that the kernel looks up.
// compile, explain, datapath and proxy use this code and no other.
// It is pure: no clock, no I/O, no state, nothing of ours imported.
package policy
