// Package flow moves records: it collects them on a node (Collector), keeps
// them in bounded memory (Archive), ships them to the control plane and
// answers questions (Filter).
//
// In: records from the datapath. Out: records, filtered, to who asks, and the
// number of those that had to be dropped. It never blocks the datapath and
// never grows without bound: when it is full, the oldest go and are counted.
package flow
