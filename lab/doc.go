// Package lab makes many nodes on one machine: a network namespace for each
// node, an underlay between them, one moired and one moire-node in each. It is
// what `moire demo`, the root tests and the benchmarks stand on.
//
// In: how many nodes, which binaries. Out: running processes, namespaces and a
// kubeconfig. Everything that it makes bears the lab's name, and Down removes
// it even after a crash of the one who made it. It never touches interfaces,
// namespaces or processes of others, and never sends traffic beyond its own
// namespaces and loopback.
//
//	                host: moired, moire CLI
//	                   |  198.18.77.1/24
//	       ------- bridge <lab> (underlay) -------
//	       |  .11                           |  .12
//	 netns <lab>-n1                   netns <lab>-n2
//	  moire-node n1                    moire-node n2
//	  | veth     | veth                | veth
//	workload   workload              workload          (own namespaces)
package lab
