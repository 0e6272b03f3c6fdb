// Package store is the API server of Moiré: an embedded Kubernetes API server
// without pods, on an embedded or external etcd.
//
// In: a Config (where state lives, where to listen), the World (what nodes
// reported) and the handlers of virtual resources. Out: an HTTPS endpoint that
// kubectl and client-go speak to, an admin kubeconfig, a loopback client that
// sees intent only, and Rows, small durable values with compare-and-swap.
//
// It installs the CRDs of moire.dev and of the Gateway API, roles and admission policies, and lays the
// world over the intent when `workloads` and `nodes` are read. It never
// interprets an object of ours: it allocates nothing, compiles nothing and
// writes no status. See DESIGN.md for the invariants.
package store
