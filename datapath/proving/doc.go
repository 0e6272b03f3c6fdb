// Package proving asks the real packet programs, in the kernel but without any
// traffic, what they do with a packet on a node that is described by a snapshot.
//
// In: a snapshot and packets, as frames or described. Out: the judgement of the
// program (action, rule, drop reason, the frame as it leaves). It needs root;
// everything lives in a namespace and tables of its own that go with Close. It
// never touches the data path of a running node.
package proving
